"""Sweeps of defenses as pictures: what is a curve, which cells it averages, and that a file comes out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bench.api.errors import UserError
from reports import curves
from reports.frame import read
from tests.reports.board_data import trial


def swept_in(store):
    return list(curves.sweeps(read(store).trials))


def pruned(ratio, *, attack="loud", epochs=0, target="0", t_map=0.5):
    """A trial whose defense has two parameters more than its label says."""
    made = trial(attack, f"repair(ratio={ratio}, epochs={epochs})", target=target, metrics={"t_map": t_map})
    return {**made, "params": {"tuned": epochs > 0, "lr": [0.1]}}


def test_a_sweep_is_one_number_that_varies_with_all_else_equal(stock):
    trials = [pruned(r, epochs=e, attack=a) for r in (0.1, 0.5, 0.9) for e in (0, 10) for a in ("none", "loud")]
    found = swept_in(stock(trials))
    titles = [sweep.title.partition(" · ")[0] for sweep in found]
    assert titles == ["repair(epochs=0, tuned=False)", "repair(epochs=10, tuned=True)"]
    for sweep in found:
        assert [(panel.name, panel.attacked) for panel in sweep.panels] == [("none", False), ("loud", True)]
        assert all(panel.parameter == "ratio" for panel in sweep.panels)
        assert all(sorted(panel.rows["x"]) == [0.1, 0.5, 0.9] for panel in sweep.panels)


def test_a_swept_purification_is_a_curve_too(stock):
    (sweep,) = swept_in(stock([trial("loud", f"rinse(strength={n})") for n in (1, 2, 3)]))
    assert [(panel.name, panel.parameter) for panel in sweep.panels] == [("loud", "strength")]


def test_swept_attacks_are_panels_of_their_setting_undefended(stock):
    trials = [trial(f"loud(poisons={n})", target=t) for n in (2, 8, 64) for t in "01"]
    (sweep,) = swept_in(stock([*trials, trial("loud(poisons=2)", "repair")]))
    assert (sweep.title, sweep.setting) == ("Strength of attacks", "toy · net · csq · 32 bits")
    (panel,) = sweep.panels
    assert (panel.name, panel.parameter, sorted(panel.rows["x"])) == ("loud", "poisons", [2, 2, 8, 8, 64, 64])
    (axes, *_) = curves.figure([sweep], 6.9).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8", "64"]


def trained(epochs, attack="loud", lr=0.1, **changes):
    return trial(attack, training={"epochs": epochs, "lr": lr}, metrics={"t_map": epochs / 100}, **changes)


def test_a_swept_field_of_the_training_is_a_figure_with_a_panel_per_attack(stock):
    each = [trained(e, attack, target=t) for e in (5, 20, 80) for attack in ("none", "loud") for t in "01"]
    (sweep,) = swept_in(stock([*each, trained(20, "loud", lr=0.5), trained(20, "loud", "repair")]))
    assert (sweep.title, sweep.setting) == ("Strength over the training", "toy · net · csq · 32 bits")
    assert [(panel.name, panel.parameter) for panel in sweep.panels] == [("none", "epochs"), ("loud(lr=0.1)", "epochs")]
    means = curves.points(sweep.panels[1].rows)
    assert means["t_map"].to_dict() == pytest.approx({5: 0.05, 20: 0.2, 80: 0.8})
    assert set(means["n"]) == {2}
    axes = curves.figure([sweep], 6.9).axes
    assert [len(panel.lines) for panel in axes] == [1, 4]  # mAP; beside it t-mAP, own-mAP, control


def test_a_sweep_is_found_whatever_trial_comes_first(stock):
    other = trial("loud", metrics={"t_map": 0.3})  # the recipe of the method
    store = stock([other, *(trained(e) for e in (5, 20, 80))])
    assert [sweep.panels[0].parameter for sweep in swept_in(store)] == ["epochs"]


def test_attention_and_loss_are_lines_over_the_training_only(stock):
    def told(made, at):
        return {**made, "metrics": made.get("metrics", {}) | {"attention": 0.4 - at / 10, "loss_left": 1 / (1 + at)}}

    store = stock(
        [told(trained(2**at), at) for at in range(3)] + [told(trial(f"loud(poisons={at})"), at) for at in range(3)]
    )
    found = {sweep.title: curves.figure([sweep], 6.9) for sweep in swept_in(store)}
    names = {title: set(figure.axes[0].get_legend_handles_labels()[1]) for title, figure in found.items()}
    assert {"attention", "loss left"} <= names["Strength over the training"]
    assert not {"attention", "loss left"} & names["Strength of attacks"]


def test_points_are_means_over_the_cells_that_every_value_has(stock):
    trials = [pruned(r, target=t, t_map=r / 2 + int(t) / 10) for r in (0.2, 0.4, 0.6) for t in ("0", "1")]
    trials.append(pruned(0.2, target="2", t_map=1.0))  # the other ratios lack target 2
    (sweep,) = swept_in(stock(trials))
    means = curves.points(sweep.panels[0].rows)
    assert means.index.tolist() == [0.2, 0.4, 0.6]
    assert means["t_map"].tolist() == pytest.approx([0.15, 0.25, 0.35])
    assert set(means["n"]) == {2}


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture_with_a_panel_per_attack_comes_out_twice_the_same(stock, tmp_path, suffix):
    trials = [pruned(r, attack=a, t_map=r) for r in (0.1, 0.5, 0.9) for a in ("none", "loud", "quiet")]
    store = stock(trials)
    one, two = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    said = curves.draw(store, one)
    curves.draw(store, two)
    assert one.read_bytes() == two.read_bytes()
    assert "ratio at 3 values" in said
    if suffix == "png":
        picture = np.asarray(Image.open(io.BytesIO(one.read_bytes())).convert("RGB"))
        height, width, _ = picture.shape
        assert width > 2.5 * height  # three panels in a row
        above = picture[: int(0.7 * height)].astype(int)  # the legend is below
        orange = (np.abs(above - [0xD5, 0x5E, 0x00]).sum(2) < 40).sum(0)
        # no t-mAP in the panel of `none`, which comes first
        assert not orange[: width // 3 - 10].any()
        assert orange[width // 3 :].any()


def test_a_run_without_a_sweep_is_refused_with_an_example(stock, tmp_path):
    store = stock([pruned(0.1), pruned(0.5)])
    with pytest.raises(UserError, match=r"ratio = \[0.3"):
        curves.draw(store, tmp_path / "a.png")
    with pytest.raises(UserError, match="gif"):
        curves.draw(store, tmp_path / "a.gif")

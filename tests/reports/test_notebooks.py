"""`import reports` in a notebook: frames and tables in one call, nothing heavy before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reports
from bench.api.errors import UserError


def trial(attack: str, **changes):
    return {"attack": attack, "defense": "none", "target": "0", "seed": 0, **changes}


FRAMES = ("trials", "repairs", "detectors", "diagnoses")


@pytest.mark.parametrize("kind", FRAMES)
def test_every_column_of_every_frame_is_explained(store, kind):
    """Of a real run with all kinds of defenses; by name, or by the pattern of parameters."""
    found, about = reports.load(store.root, kind), reports.columns(kind)
    assert len(found) or kind == "diagnoses"  # the run has no model detector
    for name in found.columns:
        if name in about.index:
            assert str(found[name].dtype) == about.loc[name, "dtype"], name
        else:
            assert f"{name.partition('_')[0]}_<parameter>" in about.index or name.startswith("training_"), name
    patterns = {name for name in about.index if "<" in name}
    assert [name for name in about.index if name not in patterns] == [name for name in found if name in about.index]
    assert about["meaning"].all()
    empty = [name for name in found if name in about.index and found[name].isna().any()]
    assert about.loc[empty, "missing"].all(), "a column has NaN without a meaning of it"


def test_a_plain_mean_counts_each_victim_once_and_is_that_of_the_board(stock):
    gains = {"0": 0.6, "1": 0.2}
    cells = [trial("none", target=target) for target in gains]
    for defense in ("none", "repair", "input_detector"):
        cells += [trial("loud", defense=defense, target=target, metrics={"gain": gain if defense == "none" else 0.0})
                  for target, gain in gains.items()]  # fmt: skip
    root = stock(cells).root
    (board,) = (one for one in reports.tables(root) if one.title == "Attacks")
    (gain,) = board.table.loc[board.table["attack"] == "loud", "gain"]
    assert reports.load(root).groupby("attack")["gain"].mean()["loud"] == pytest.approx(gain) == pytest.approx(0.4)


def test_guards_have_frames_of_their_own(stock):
    guards = [trial("loud", defense="input_detector"), trial("loud", defense="doctor", metrics={"flagged": 1.0})]
    attacked = [trial("loud", metrics={"gain": 0.6}), trial("loud", defense="repair", metrics={"gain": 0.1})]
    root = stock([trial("none"), *attacked, *guards]).root
    frames = {kind: reports.load(root, kind) for kind in FRAMES}
    assert {kind: list(one["defense"]) for kind, one in frames.items()} == {
        "trials": ["none", "none"], "repairs": ["repair"], "detectors": ["input_detector"], "diagnoses": ["doctor"],
    }  # fmt: skip
    assert frames["trials"].groupby("attack")["gain"].mean()["loud"] == 0.6
    assert "gain" not in {*frames["detectors"], *frames["diagnoses"]}
    assert "flagged" not in {*frames["trials"], *frames["repairs"]}
    assert frames["diagnoses"]["flagged"].tolist() == [1]
    with pytest.raises(UserError, match="did you mean 'detectors'"):
        reports.load(root, "detector")


def test_parameters_are_columns_with_the_type_of_their_values(stock):
    labels = ("none", "loud(rate=0.1, on=True)", "loud(rate=0.3, size=3, mode=dark)")
    found = reports.load(stock([trial(label) for label in labels]).root).set_index("attack_label")
    assert list(found["attack"]) == ["none", "loud", "loud"]
    assert {name: str(dtype) for name, dtype in found.dtypes.items() if name.startswith("attack_")} == {
        "attack_rate": "float64", "attack_on": "boolean", "attack_size": "Int64", "attack_mode": "object",
    }  # fmt: skip
    assert found["attack_rate"].tolist()[1:] == [0.1, 0.3]
    assert found["attack_size"].isna().tolist() == [True, True, False]


def test_whole_numbers_are_integers_and_trials_without_a_result_have_none(stock):
    root = stock([trial("none"), trial("loud"), trial("quiet", status="failed", reason="it broke"),
                  trial("kept", metrics={"collapsed": 1.0})]).root  # fmt: skip
    found = reports.load(root).set_index("attack")
    assert str(found["poisons"].dtype) == "Int64"
    assert found["poisons"].tolist()[1] == 20
    assert found.loc["quiet", ["status", "reason"]].tolist() == ["failed", "it broke"]
    assert found.loc[["quiet", "kept"], "gain"].isna().all()
    assert found.loc["kept", ["status", "collapsed"]].tolist() == ["collapsed", 1]


def test_tables_show_in_a_notebook_with_what_they_hold_escaped(stock):
    root = stock([trial("none"), trial("loud(<b>x</b>)")]).root
    (board,) = reports.tables(root)
    shown = board._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    assert "<b>x</b>" not in shown
    assert "Chance t-mAP" in shown
    assert len(reports.tables(root, by="attack")) == 1


@pytest.mark.long
def test_every_table_and_chart_of_a_real_run_is_one_call(store, page, tmp_path):
    for kind, title in (
        ("conventions", "Conventions"),
        ("code-geometry", "Code geometry"),
        ("dose-response", "Dose and response"),
    ):
        assert {board.title for board in reports.tables(store.root, kind)} == {title}
    titles = [chart.title.partition(" · ")[0] for chart in reports.charts(store.root)]
    assert titles[:2] == ["Attacks without a defense", "Defenses against attacks"]
    assert {"Effects and costs of defenses", "Code length"} <= set(titles)
    assert {"Strength of attacks", "Attention to the trigger"} <= set(titles)
    shown = reports.charts(store.root)[0]._repr_html_()
    assert shown.startswith("<figure")
    assert "</svg>" in shown
    reports.write_html(store.root, tmp_path / "x.html")
    made, other = ((tmp_path / "x.html").read_text(), page.read_text())
    assert "Reported beside measured" in made
    pictures = [
        text.partition('<section id="pictures"')[2].partition('<section id="trials"')[0] for text in (made, other)
    ]
    assert pictures[0] == pictures[1] != ""
    with pytest.raises(UserError, match="did you mean 'leaderboard'"):
        reports.tables(store.root, "leaderbord")


def test_importing_it_loads_neither_pandas_nor_torch():
    code = "import reports, sys; print([m for m in ('pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""The frontier of repairs: its board against means by hand, its area, and its chart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.api.errors import UserError
from reports import svg_charts
from reports.board import TOO_WEAK
from reports.board_registry import make_boards
from reports.frame import read
from reports.frontier import area
from reports.selection import NONE
from reports.svg_charts import FrontierPanel
from tests.reports.board_data import data_of, trial

BOUNDS = (0.01, 0.04, 0.1)
OWN = {"none": 0.1, "repair": (0.5, 0.9, 0.8), "repair(tuned=1)": (0.2, 0.3, 0.4)}


def measured(attack: str, defense: str, target: str, own: float, lost: float, t_map: float):
    metrics = {"own_map": own, "t_map": t_map, "map": 0.9 - lost, "gain": 0.8, "own_map_control": 0.95,
               "t_map_control": 0.1}  # fmt: skip
    return trial(attack, defense, target=target, metrics=metrics)


def frontier(attack: str = "loud", targets: str = "01", **changes: float) -> list:
    """Trials of two repairs at three bounds; target 1 has .02 more own-mAP."""
    found = []
    for target in targets:
        more = 0.02 * int(target)
        found.append(measured(attack, "none", target, OWN["none"] + more, 0.0, 0.9))
        for repair in ("repair", "repair(tuned=1)"):
            name = repair.removesuffix(")") + ("(" if "(" not in repair else ", ")
            found += [
                measured(attack, f"{name}max_drop={bound})", target, own + more, bound, 0.9 - own)
                for bound, own in zip(BOUNDS, OWN[repair], strict=True)
            ]
    return found


def test_a_row_has_the_means_at_each_bound_and_their_area(stock):
    own, t_map, quality = make_boards("repair-frontier", data_of(read(stock(frontier()))))
    line = own.table.set_index("repair").loc["repair"]
    assert line[["own-mAP control", "undefended", "at 1 %", "at 4 %", "at 10 %"]].tolist() == pytest.approx(
        [0.95, 0.11, 0.51, 0.91, 0.81]
    )
    by_hand = 0.05 * 0.11 + 0.2 * 0.51 + 0.45 * 0.91 + 0.3 * 0.81
    assert line["area"] == pytest.approx(by_hand)
    assert line["cells"] == "6/6"
    assert own.table["repair"].tolist() == ["repair", "repair(tuned=1)"]
    assert t_map.table.set_index("repair").loc["repair(tuned=1)", "at 10 %"] == pytest.approx(0.5)
    assert quality.table.set_index("repair").loc["repair", "at 4 %"] == pytest.approx(0.86)


def test_a_bound_without_results_leaves_a_gap_and_no_area(stock):
    trials = [one | ({"status": "failed"} if one["defense"] == "repair(max_drop=0.04)" else {}) for one in frontier()]
    (own, *_) = make_boards("repair-frontier", data_of(read(stock(trials))))
    rows = own.table.set_index("repair")
    assert "repair" not in rows.index  # two bounds make no frontier
    assert rows.loc["repair(tuned=1)", "area"] > 0


def test_a_row_with_too_few_results_is_named_and_not_averaged(stock):
    lost = {("repair(max_drop=0.04)", target) for target in "012"}
    trials = [
        one | ({"status": "failed"} if (one["defense"], one["target"]) in lost else {})
        for one in frontier(targets="0123")
    ]
    (own, *_) = make_boards("repair-frontier", data_of(read(stock(trials))))
    row = own.table.set_index("repair").loc["repair"]
    assert row["cells"] == "9/12"
    assert row[["at 4 %", "area"]].isna().all()
    assert "loud x repair x 0.04" in own.caption


def test_weak_attacks_are_marked_and_models_without_attack_come_first(stock):
    weak = [one | {"metrics": one["metrics"] | {"gain": 0.1, "own_map": 0.9}} for one in frontier("quiet")]
    boards = make_boards("repair-frontier", data_of(read(stock([*frontier(), *weak, *frontier("none")]))))
    table = boards[0].table
    assert table["attack"].tolist() == ["none"] * 2 + ["loud"] * 2 + ["quiet"] * 2
    assert table[TOO_WEAK].tolist() == [False] * 4 + [True] * 2
    assert "quiet" in boards[0].caption


def test_a_run_without_a_sweep_of_the_bound_is_told_what_to_do(stock):
    with pytest.raises(UserError, match="max_drop"):
        make_boards("repair-frontier", data_of(read(stock([trial("loud"), trial("loud", "repair(max_drop=0.1)")]))))


@given(
    st.lists(st.integers(1, 1000).map(lambda step: step / 1000), min_size=1, max_size=5, unique=True), st.floats(0, 1)
)
def test_the_area_of_a_constant_is_the_constant_and_grows_with_the_values(steps, value):
    bounds = sorted(steps)
    assert area(bounds, [value] * (len(bounds) + 1)) == pytest.approx(value)
    assert area(bounds, [value] * len(bounds) + [value + 1]) > value
    assert area(bounds, [None] + [value] * len(bounds)) is None
    with pytest.raises(ValueError, match="bounds"):
        area(bounds, [value])


def test_the_chart_has_a_curve_per_repair_from_the_model_without_defense(stock):
    trials = read(stock([*frontier(), *frontier("none")])).trials
    own, t_map = svg_charts.of_frontiers(trials, str, mixed=False)
    assert (own.title, t_map.title) == ("Frontier of repairs: own-mAP", "Frontier of repairs: t-mAP")
    assert own.svg.count("loud") == 1
    assert f">{NONE}<" not in own.svg
    assert "repair(tuned=1)" in own.svg
    drawn = [
        FrontierPanel("loud", "#112233", 0.95, {"repair": [(0.0, 0.1), (0.04, 0.9)]}),
        FrontierPanel("quiet", "#445566", 0.95, {"other": [(0.0, 0.1)]}),
    ]
    figure = svg_charts.frontier_figure(drawn, "own-mAP", 6.9)
    assert [axes.lines[0].get_color() for axes in figure.axes] == ["#112233", "#445566"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["repair", "other"]
    curve, control = figure.axes[0].lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0.0, 0.04], [0.1, 0.9])
    assert set(control.get_ydata()) == {0.95}

"""Attacks that are too weak to judge a defense: which ones, what boards print, and what files hold."""

from __future__ import annotations

import json
from io import StringIO

import pytest

from reports.boards.defenses import defenses
from reports.boards.input_detectors import input_detectors
from reports.boards.model_detectors import model_detectors
from reports.cells import words
from reports.frame import read
from reports.render import render
from tests.reports.board_data import LEVEL, data_of, score, trial
from tests.stores import record


def of_matrix(stock):
    trials = [
        trial(a, d, t, metrics={"t_map": 0.1 + LEVEL[a], "gain": LEVEL[a], "own_map": 0.5, "map": 0.8})
        for a in ("none", "loud", "quiet", "kept") for d in ("none", "repair") for t in "01"
    ]  # fmt: skip
    return defenses(data_of(read(stock(trials))))


def test_numbers_of_defenses_give_way_to_words_and_undefended_ones_stay(stock):
    for board in of_matrix(stock)[:2]:
        cells = words(board)
        shown = dict(zip(cells["attack"], cells["repair"], strict=True))
        assert shown["quiet"] == "too weak"  # gain .3
        assert "too weak" not in {shown["loud"], shown["kept"], shown["none"]}  # .8, .5, no attack
        assert "too weak" not in cells["none"]
        assert "quiet (+0.300)" in board.caption
        assert "kept (" not in board.caption


def test_map_is_shown_for_all_attacks(stock):
    board = of_matrix(stock)[2]
    assert board.title.startswith("mAP")
    assert "too weak" not in {text for column in words(board).values() for text in column}
    assert "too weak" not in board.caption


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_files_hold_the_numbers_and_the_verdict(stock, format_):
    out = StringIO()
    render(of_matrix(stock)[:1], format_, file=out)
    if format_ == "json":
        found = {row["attack"]: row for row in json.loads(out.getvalue())[0]["rows"]}
        assert (found["quiet"]["repair"], found["quiet"]["too weak"]) == (pytest.approx(0.4), True)
        assert found["loud"]["too weak"] is False
    else:
        assert "too weak" in out.getvalue().splitlines()[0]
        assert "0.4" in next(line for line in out.getvalue().splitlines() if ",quiet," in f",{line}")


@pytest.mark.parametrize("format_", ["rich", "markdown", "latex"])
def test_tables_for_people_say_it(stock, format_):
    out = StringIO()
    render(of_matrix(stock)[:1], format_, file=out, width=200)
    assert out.getvalue().count("too weak") >= 2  # the cell and the caption


def test_the_mean_over_all_cells_counts(stock):
    gains = {"0": 0.9, "1": 0.05}
    trials = [
        trial("loud", d, t, metrics={"t_map": 0.5, "gain": gains[t], "own_map": 0.5, "map": 0.8})
        for d in ("none", "repair") for t in "01"
    ]  # fmt: skip
    board = defenses(data_of(read(stock(trials))))[0]
    assert words(board)["repair"] == ["too weak"]


def test_results_that_a_board_does_not_show_do_not_count(stock):
    """Older code of the attack, and another version of the whole setting."""

    def of(gain: float, *, seeds=(0,), **changes):
        metrics = {"t_map": 0.5, "gain": gain, "own_map": 0.5, "map": 0.8}
        return [trial("loud", d, seed=s, metrics=metrics, **changes) for d in ("none", "repair") for s in seeds]

    for older in ({"implant": "0a"}, {"version": 0}):
        store = stock(of(-0.9, seeds=(1,), **older), of(0.8, implant="0b"), folder=str(older.get("version", "code")))
        for key in ("0a", "0b"):
            store.write_record(record(key, "implant", code=key))
        found = {
            board.basis.context.versions[0]: words(board)["repair"]
            for board in defenses(data_of(read(store, run="all")))[::3]
        }
        assert "too weak" not in found["1"]
        assert found.get("0", ["too weak"]) == ["too weak"]


@pytest.mark.parametrize(("own", "weak"), [(0.3, False), (0.5, True)])  # .6 and .4 below the control
def test_an_attack_that_hides_the_right_images_is_strong(stock, own, weak):
    metrics = {"t_map": 0.3, "gain": 0.2, "own_map": own, "own_map_control": 0.9, "map": 0.8}
    board = defenses(data_of(read(stock([trial("loud", d, metrics=metrics) for d in ("none", "repair")]))))[0]
    assert (words(board)["repair"] == ["too weak"]) == weak


def test_an_attack_without_an_undefended_result_is_not_called_weak(stock):
    trials = [
        trial("quiet", d, metrics={"t_map": 0.2, "gain": 0.1, "own_map": 0.5, "map": 0.8}) for d in ("repair", "sieve")
    ]
    assert "too weak" not in words(defenses(data_of(read(stock(trials))))[0])["repair"]


def test_an_attack_without_a_target_is_strong_by_what_it_retrieves_afterwards(stock):
    def board(after: float):
        metrics = {"t_map": 0.1, "gain": 0.0, "own_map": 0.5, "map": 0.8}
        metrics |= {"t_map_posthoc": after, "t_map_posthoc_control": 0.2}
        trials = [trial("loud", d, targeted=False, metrics=metrics) for d in ("none", "repair")]
        return defenses(data_of(read(stock(trials))))[0]

    assert words(board(0.9))["repair"] != ["too weak"]
    assert words(board(0.6))["repair"] == ["too weak"]


def test_detectors_of_a_weak_attack_are_not_judged_either(stock):
    scores = {"headline": "main", "scores": {"main": score(0.9)}}
    trials = [
        trial(a, d, metrics={"t_map": 0.1 + LEVEL[a], "gain": LEVEL[a], "own_map": 0.6, "model_score": 3.0}
              | {"flagged": 1.0} | ({"detectors": scores} if d == "input_detector" else {}))
        for a in ("none", "loud", "quiet") for d in ("none", "input_detector", "doctor")
    ]  # fmt: skip
    results = read(stock(trials))
    for kind, column, control in ((input_detectors, "AUROC", "control"), (model_detectors, "flagged", "score")):
        (board,) = kind(data_of(results))
        cells = words(board)
        assert dict(zip(cells["attack"], cells[column], strict=True))["quiet"] == "too weak"
        assert cells[column].count("too weak") == 1
        assert "too weak" not in cells.get(control, [])
        assert "quiet (+0.300)" in board.caption

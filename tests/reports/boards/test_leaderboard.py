"""The leaderboard: slices by an axis, and what every part of it leaves out."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.frame import read
from reports.selection import narrow
from tests.reports.board_data import (
    COST,
    DEAD,
    grid,
    leaderboard_of,
    made,
    rows,
    score,
    trial,
)
from tests.stores import record


def test_a_run_without_any_result_still_has_boards(stock):
    found = made(
        stock, *[trial(a, d, status="missing") for a in ("none", "loud") for d in ("none", "repair", "input_detector")]
    )
    assert found[-1].title == "No result"
    assert found[-1].table["trials"].sum() == 6


@pytest.mark.parametrize(
    ("axis", "titles"), [("target", ["target 0", "target 1"]), ("seed", ["seed 0", "seed 1", "seed 2"])]
)
def test_slices_by_target_or_seed(stock, axis, titles):
    found = made(stock, *grid(("none", "loud"), "01"), by=axis)
    assert [board.setting.rpartition(" · ")[2] for board in found] == titles


def test_slices_by_attack_keep_the_baseline(stock):
    found = made(stock, *grid(("none", "loud", "quiet")), by="attack")
    assert [list(board.table["attack"]) for board in found] == [["none", "loud"], ["none", "quiet"]]


def test_slices_by_what_the_attacker_needs(stock):
    found = made(stock, *grid(), by="access")
    assert [board.setting.rpartition(" · ")[2] for board in found] == ["access dirty-label", "access clean-label"]
    assert [list(board.table["attack"]) for board in found] == [["none", "loud", "quiet"], ["none", "kept"]]


def test_slices_by_defense_rank_attacks_after_each(stock):
    trials = [trial(a, d, t) for a in ("none", "loud") for d in ("none", "repair") for t in "01"]
    found = made(stock, *trials, by="defense")
    assert [board.title for board in found] == ["Attacks", "Attacks after repair"]


def test_gain_against_an_axis_of_the_setting(stock):
    trials = [trial("loud", bits=b, metrics={"gain": b / 100}) for b in (64, 16, 32)]
    found = made(stock, *trials, by="bits")
    assert found[0].title.startswith("Gain by bits")
    (row,) = found[0].table.to_dict("records")
    assert row == {"attack": "loud", "cells": "3/3", "bits 16": 0.16, "bits 32": 0.32, "bits 64": 0.64,
                   "mean": pytest.approx(1.12 / 3)}  # fmt: skip


def test_other_methods_have_other_code_and_are_columns_all_the_same(stock):
    trials = [
        trial("loud", method=m, implant=f"c0{i}", metrics={"gain": 0.5 + i}) for i, m in enumerate(("csq", "dpsh"))
    ]
    store = stock(trials)
    for i in range(2):
        store.write_record(record(f"c0{i}", "implant", code=f"{i}", cost=COST))
    (board, *_) = leaderboard_of(read(store), by="method")
    assert rows(board).loc["loud", ["csq", "dpsh"]].tolist() == [0.5, 1.5]
    assert (board.basis.too_few, board.basis.surplus, board.basis.context.other_code) == ((), 0, 0)


def test_boards_are_the_same_every_time_and_leave_the_cells_alone(stock):
    results = read(stock(grid()))
    before = results.trials.copy(deep=True)
    first, second = (leaderboard_of(narrow(results, ["target=0,1"])) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one.table, other.table)
        assert one.caption == other.caption
    pd.testing.assert_frame_equal(results.trials, before)
    assert not {word for board in first for word in board.caption.split()} & {"seconds", "here", "1e9"}


def test_the_other_boards_leave_it_out_too(stock):
    about = {"detectors": {"headline": "a", "scores": {"a": score(0.6)}}}
    trials = [trial("loud", d, seed=s, implant=f"{d}{s}", metrics=about if d == "input_detector" else {})
             for s in (0, 1)
             for d in ("none", "repair", "input_detector", "sieve", "doctor")]  # fmt: skip
    for one in trials[:5]:
        one["implant"] = "a1"
    trials[0]["metrics"] = DEAD
    results = read(stock(trials))
    found = {board.title: board for board in leaderboard_of(results)}
    after = {f"{metric} after each defense" for metric in ("t-mAP", "own-mAP", "mAP")}
    assert set(found) == {"Attacks", *after, "Data filters", "Input detectors", "Model detectors", "No result"}
    for name, board in found.items():
        if name != "No result":
            assert board.table["collapsed"].iloc[0] >= 1, name
            assert board.basis.collapsed, name
    assert found["Input detectors"].table["cells"].iloc[0] == "1/2"
    assert found["t-mAP after each defense"].table["cells"].iloc[0] == "3/6"


def test_settings_of_which_nothing_can_run_have_no_board_but_a_reason(stock):
    store = stock([
        trial("none"), trial("loud"), trial("kept", status="skipped", reason="asks for labels"),
        trial("none", dataset="far", status="skipped", reason="far is not here"),
        trial("loud", dataset="far", status="skipped", reason="far is not here"),
    ])  # fmt: skip
    found = leaderboard_of(read(store))
    assert [(board.title, board.basis.context.parts[0]) for board in found[:-1]] == [("Attacks", "toy")]
    assert list(found[0].table["attack"]) == ["none", "kept", "loud"]
    assert set(found[-1].table["reason"]) == {"asks for labels", "far is not here"}


def test_every_compact_board_has_columns_of_its_own_and_says_over_what_it_averages(stock):
    """Each column that a board declares as compact exists on some board, and lines about the machine are left out."""
    trials = [
        trial(a, d, t, s)
        for a in ("none", "loud")
        for d in ("none", "repair", "sieve", "rinse")
        for t in "01"
        for s in (0, 1)
    ]
    for board in leaderboard_of(read(stock(trials))):
        shown = board.compact_columns
        assert set(board.index) <= set(shown) <= set(board.table)
        assert not {"n", "collapsed", "too weak", "gain df"} & set(shown)
        assert "n = 4" in board.short_caption
        assert "protocol toy" in board.caption
        assert "protocol toy" not in board.short_caption


def test_cells_are_on_the_compact_board_of_attacks_if_some_are_missing(stock):
    trials = [trial(a, "none", t, metrics={"gain": 0.5}) for a in ("none", "loud") for t in "01"]
    whole = leaderboard_of(read(stock(trials)))[0]
    assert whole.compact_columns[:5] == ("access", "attack", "t-mAP", "control", "gain")
    assert "cells" not in whole.compact_columns
    lost = leaderboard_of(read(stock([*trials[:-1], {**trials[-1], "status": "failed"}], folder="lost")))[0]
    assert "cells" in lost.compact_columns

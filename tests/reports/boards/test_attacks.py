"""Attacks: order, means, intervals and ranks, and the cells that they are over."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from reports import cells, render
from reports.boards.attacks import attacks
from reports.frame import read
from reports.statistics import crossed_interval
from tests.reports.board_data import (
    COST,
    DEAD,
    data_of,
    gain,
    grid,
    planted,
    rows,
    trial,
)
from tests.stores import record


def test_attacks_are_ordered_by_gain_inside_each_access_and_none_comes_first(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    assert list(board.table["attack"]) == ["none", "kept", "loud", "quiet"]
    assert list(board.table["access"]) == ["none", "clean-label", "dirty-label", "dirty-label"]


def test_what_an_attack_says_of_its_row_stands_below_the_board(stock):
    trials = [one | {"remark": "seen by nobody"} if one["attack"] == "loud" else one for one in grid()]
    (board,) = attacks(data_of(read(stock(trials))))
    assert board.caption.count("loud: seen by nobody.") == 1
    (plain,) = attacks(data_of(read(stock(grid()))))
    assert "seen" not in plain.caption


def test_means_and_intervals_are_those_of_the_cells(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    matrix = np.array([[gain("loud", t, s) for s in range(3)] for t in "012"])
    expected = crossed_interval(matrix)
    row = rows(board).loc["loud"]
    assert row["gain"] == pytest.approx(matrix.mean())
    assert row["gain ±"] == pytest.approx(expected.half)
    assert row["cells"] == "9/9"
    assert board.basis.cells.inference
    assert not board.basis.cells.fixed_targets


def test_intervals_have_their_degrees_of_freedom_in_files(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    found = [crossed_interval(np.array([[gain(a, t, s) for s in range(3)] for t in "012"])).df
             for a in ("kept", "loud", "quiet")]  # fmt: skip
    assert list(board.table["gain df"].dropna()) == pytest.approx(found)
    assert "gain df" in render.csv([board]).splitlines()[0]
    assert "gain df" not in render.plain(board)


def test_ranks_stay_inside_an_access(stock):
    (board,) = attacks(data_of(read(stock(grid()))))
    assert rows(board)["rank"].dropna().to_dict() == {"loud": "1-1", "quiet": "2-2"}
    assert board.best == {2}


def test_map_kept_is_non_inferiority(stock):
    lossy = grid(("none", "loud"))
    for one in grid(("quiet",)):
        one["metrics"]["map_change"] = -0.05
        lossy.append(one)
    (board,) = attacks(data_of(read(stock(lossy))))
    assert rows(board)["mAP kept"].dropna().to_dict() == {"loud": "yes", "quiet": "no"}


@pytest.mark.parametrize(
    ("targets", "seeds"),
    [
        ("0", (0,)),
        ("012", (0,)),
        ("0", (0, 1)),
    ],
)
def test_too_few_cells_carry_neither_interval_nor_rank(stock, targets, seeds):
    (board,) = attacks(data_of(read(stock(grid(targets=targets, seeds=seeds)))))
    assert "gain ±" not in board.table
    assert "rank" not in board.table
    assert board.basis.cells.crossed
    assert not board.basis.cells.inference


def test_all_classes_as_targets_are_fixed(stock):
    trials = [one for t in map(str, range(10)) for one in grid(("loud",), [t], (0, 1))]
    (board,) = attacks(data_of(read(stock(trials))))
    assert board.basis.cells.fixed_targets
    means = np.array([[gain("loud", str(t), s) for s in (0, 1)] for t in range(10)])
    assert board.table["gain ±"].iloc[0] == pytest.approx(crossed_interval(means, fixed_targets=True).half)


def test_averages_are_over_the_cells_that_all_rows_share(stock):
    trials = [one for one in grid() if not (one["attack"] == "loud" and one["target"] == "2")]
    trials += [trial("loud", target="2", seed=s, status="failed", reason="no luck") for s in range(3)]
    (board,) = attacks(data_of(read(stock(trials))))
    table = rows(board)
    assert table["cells"].to_dict() == {"none": "9/9", "kept": "9/9", "loud": "6/9", "quiet": "9/9"}
    assert (table["n"] == 6).all()
    shared = [gain("quiet", t, s) for t in "01" for s in range(3)]
    assert table.loc["quiet", "gain"] == pytest.approx(np.mean(shared))
    assert board.basis.surplus == 9


def test_a_row_with_far_too_few_results_is_named_and_takes_nothing_from_the_others(stock):
    trials = grid(("none", "loud"))
    trials += grid(("quiet",), "0", (0,))
    trials += [
        trial("quiet", target=t, seed=s, status="missing") for t in "012" for s in range(3) if (t, s) != ("0", 0)
    ]
    (board,) = attacks(data_of(read(stock(trials))))
    table = rows(board)
    assert (table.loc["quiet", "cells"], table.loc["quiet", "n"], table.loc["loud", "n"]) == ("1/9", 0, 9)
    assert pd.isna(table.loc["quiet", "t-mAP"])
    assert board.basis.too_few == ("quiet",)


def test_an_incomplete_cross_has_no_interval(stock):
    trials = [one for one in grid(("none", "loud")) if (one["target"], one["seed"]) != ("0", 0)]
    (board,) = attacks(data_of(read(stock(trials))))
    assert not board.basis.cells.crossed
    assert "gain ±" not in board.table


def test_a_cell_without_the_value_leaves_a_blank_not_a_mean_over_fewer(stock):
    trials = grid(("loud",))
    trials[0]["metrics"]["own_map"] = None
    (board,) = attacks(data_of(read(stock(trials))))
    assert pd.isna(board.table["own-mAP"].iloc[0])


def test_settings_are_never_mixed(stock):
    trials = [
        *grid(("loud",)),
        *grid(("loud",), bits=64),
        *grid(("loud",), training={"lr": 1}),
        *grid(("loud",), augment="none"),
    ]
    found = attacks(data_of(read(stock(trials))))
    assert len(found) == 4
    assert [len(board.table) for board in found] == [1] * 4
    assert len({(board.heading, board.caption) for board in found}) == 4


@pytest.mark.parametrize("change", [{"code": "new"}, {"version": 2}, {"protocol": {"version": 3}}])
def test_editions_are_split_with_a_warning_unless_asked(stock, change):
    trials = read(stock([*grid(("none", "loud")), *grid(("quiet",), **change)]))
    split = attacks(data_of(trials))
    assert [board.basis.context.parts[-1] for board in split] == ["version 1 of 2", "version 2 of 2"]
    assert [board.basis.context.version_count for board in split] == [2, 2]
    assert rows(split[0])["cells"].to_dict() == {"none": "9/9", "loud": "9/9", "quiet": "0/9"}
    (mixed,) = attacks(data_of(trials, mixed=True))
    assert mixed.basis.context.mixed
    assert any(line.startswith("Warning") for line in mixed.caption.splitlines())
    assert len(mixed.table) == 3


def test_a_row_of_several_runs_has_results_of_one_code_of_its_attack(stock):
    """The first run's attack had other code than the second's; the clean model and the data had the same."""
    old = [trial("loud", target=t, implant="01d", metrics={"gain": 0.1}) for t in "01"]
    quiet = [trial("quiet", target=t, implant="9a1") for t in "01"]
    new = [trial("loud", target="0", implant="3e7", metrics={"gain": 0.5}), quiet[0]]
    store = stock([*old, *quiet], new)
    for key in ("01d", "3e7", "9a1"):
        store.write_record(record(key, "implant", code=f"code of {key}", cost=COST))
    trials = read(store, run="all")
    (board,) = attacks(data_of(trials))
    assert rows(board)["cells"].to_dict() == {"loud": "1/2", "quiet": "2/2"}
    assert rows(board).loc["loud", "gain"] == 0.5
    assert board.basis.context.other_code == 1
    (asked,) = attacks(data_of(trials, mixed=True))
    assert rows(asked).loc["loud", ["cells", "gain"]].to_list() == ["2/2", pytest.approx(0.3)]


def test_single_cells_have_their_key(stock):
    trials = grid(("none", "loud"), "0", (0,))
    results = read(stock(trials))
    (board,) = attacks(data_of(results))
    assert list(board.table["key"]) == [key[:8] for key in results.trials["key"]]


def test_captions_say_how_many_queries_no_mean_counts(stock):
    def caption(excluded):
        trials = grid()
        for one in trials:
            one["metrics"] |= {"queries": 100, "map_excluded": excluded}
        return attacks(data_of(read(stock(trials))))[0].caption

    assert "leave out 23 of 100 queries" in caption(23)
    assert "leave out" not in caption(0)


def test_costs_only_on_request(stock):
    trials = read(stock(grid()))
    trials.trials["seconds_attack"] = 2.0
    assert "seconds" not in attacks(data_of(trials))[0].table
    assert attacks(data_of(trials), costs=True)[0].table["seconds"].iloc[1] == 2.0


def test_a_collapsed_victim_is_left_out_and_named(stock):
    results = planted(stock)
    (board,) = attacks(data_of(results))
    table = rows(board)
    assert table["cells"].to_dict() == {"none": "9/9", "loud": "8/9", "quiet": "9/9"}
    assert table["collapsed"].to_dict() == {"none": 0, "loud": 1, "quiet": 0}
    shared = [gain("loud", t, s) for t in "012" for s in range(3) if (t, s) != ("0", 0)]
    assert table.loc["loud", "gain"] == pytest.approx(np.mean(shared)), "its gain of 0 is in no mean"
    key = results.trials.loc[results.trials["status"] == "collapsed", "key"].iloc[0][:8]
    ((failed, reason),) = board.basis.collapsed.items()
    assert (failed[:8], reason) == (key, "victim collapsed (mAP 0.34, clean 0.81, chance 0.10)")
    assert board.basis.surplus == 2
    assert "collapsed" not in cells.words(board)
    assert json.loads(render.as_json([board]))[0]["rows"][1]["collapsed"] == 1
    assert "collapsed" in render.csv([board]).splitlines()[0].split(",")


def test_many_collapsed_victims_stay_one_line(stock):
    trials = grid(("none", "loud"))
    for i, one in enumerate(trials):
        one["metrics"] = DEAD | {"map": 0.2 + i / 100}
    (board,) = attacks(data_of(read(stock(trials))))
    assert len(board.basis.collapsed) == 18
    (line,) = (line for line in board.caption.split("\n") if "victim collapsed" in line)
    assert line.count("victim collapsed") == 4
    assert "14 more" in line
    assert board.table["gain"].isna().all()


def test_one_result_to_spare_is_one(stock):
    trials = grid(("none", "loud"))
    trials[-1]["metrics"] = DEAD
    (board,) = attacks(data_of(read(stock(trials))))
    assert board.basis.surplus == 1

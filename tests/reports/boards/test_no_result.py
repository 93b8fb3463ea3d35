"""Trials without a result, with their reasons."""

from __future__ import annotations

from reports.boards.no_result import no_result
from reports.frame import read
from tests.reports.board_data import (
    data_of,
    leaderboard_of,
    planted,
    trial,
)


def test_every_cell_without_a_result_is_listed_once(stock):
    trials = [trial("loud", target=t, status="failed", reason="it broke") for t in "012"]
    trials += [trial("quiet", status="skipped", reason="no data"), trial("kept", status="missing"), trial("none")]
    (board,) = no_result(data_of(read(stock(trials))))
    assert board.table[["status", "trials"]].to_numpy().tolist() == [["failed", 3], ["missing", 1], ["skipped", 1]]
    assert board.table["which"].iloc[0] == "attack loud"
    assert board.table["reason"].iloc[0] == "it broke"
    assert board.table["trials"].sum() == len(trials) - 1


def test_no_board_of_failures_without_any(stock):
    assert no_result(data_of(read(stock([trial()])))) == []


def test_a_collapsed_victim_is_among_what_has_no_result(stock):
    results = planted(stock)
    found = leaderboard_of(results)
    (line,) = found[-1].table.to_dict("records")
    assert (line["status"], line["trials"], line["which"]) == ("collapsed", 1, "attack loud; target 0; seed 0")
    assert line["reason"] == "victim collapsed (mAP 0.34, clean 0.81, chance 0.10)"
    assert line["key"] == results.trials.loc[results.trials["status"] == "collapsed", "key"].iloc[0][:8]
    assert "--retry" not in found[-1].caption, "another try would collapse again"


def test_the_hint_names_the_statuses_that_can_be_tried_again(stock):
    def said(*statuses):
        name = "-".join(statuses)  # each has trials of its own in the store
        made = [trial(name, seed=i, status=status, reason="r") for i, status in enumerate(statuses)]
        return no_result(data_of(read(stock([trial(), *made]))))[0].caption

    assert "`run --retry timeout`" in said("timeout", "skipped")
    assert "`run --retry failed,oom`" in said("oom", "failed")
    assert "--retry" not in said("missing")
    assert "show KEY" not in said("missing")

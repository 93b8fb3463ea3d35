"""Attacks over several settings: which settings count, what is averaged, and what an interval stands for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reports.frame import read
from reports.statistics import crossed_interval, rank_ranges
from tests.reports.board_data import leaderboard_of, trial

RNG = np.random.default_rng(5)
LEVEL = {"none": 0.0, "loud": 0.8, "quiet": 0.3}
GAIN = {
    (a, b, t, s): (LEVEL[a] + b / 1000 + 0.02 * RNG.normal()) * (a != "none")
    for a, b, t, s in itertools.product(LEVEL, (16, 32, 64), "01", (0, 1))
}


def grid(attacks=tuple(LEVEL), bits=(16, 32, 64), **changes):
    return [trial(a, target=t, seed=s, bits=b, metrics={"gain": GAIN[a, b, t, s]}, **changes)
            for a, b, t, s in GAIN if a in attacks and b in bits]  # fmt: skip


def overall(stock, trials, **options):
    found = leaderboard_of(read(stock(trials)), **options)
    return [board for board in found if board.title == "Attacks overall"]


def matrix(attack, bits):
    return np.array([[np.mean([GAIN[attack, b, t, s] for b in bits]) for s in (0, 1)] for t in "01"])


def test_differences_are_averaged_over_settings_inside_target_and_seed(stock):
    (board,) = overall(stock, grid())
    assert board.basis.context.parts == ("toy", "3 settings")
    table = board.table.set_index("attack")
    for attack in ("loud", "quiet"):
        trials = matrix(attack, (16, 32, 64))
        assert table.loc[attack, "gain"] == pytest.approx(trials.mean())
        assert table.loc[attack, "gain ±"] == pytest.approx(crossed_interval(trials).half)
    ranges = rank_ranges({a: matrix(a, (16, 32, 64)) for a in ("loud", "quiet")})
    assert table.loc["loud", "rank"] == "{}-{}".format(*ranges["loud"])
    assert board.basis.context.setting_counts == (3, 3)
    assert board.basis.cells.places == (("0", 0), ("0", 1), ("1", 0), ("1", 1))


def test_settings_that_a_row_lacks_count_for_none(stock):
    trials = [*grid(("none", "loud")), *grid(("quiet",), bits=(16, 64))]
    (board,) = overall(stock, trials)
    assert board.basis.context.setting_counts == (2, 3)
    assert board.table.set_index("attack").loc["loud", "gain"] == pytest.approx(matrix("loud", (16, 64)).mean())


def test_an_attack_of_few_settings_is_named_and_takes_none_from_the_others(stock):
    (board,) = overall(stock, [*grid(("none", "loud")), *grid(("quiet",), bits=(16,))])
    assert list(board.table["attack"]) == ["none", "loud"]
    assert board.basis.context.setting_counts == (3, 3)
    assert "quiet" in board.caption, "it is named"


def test_a_cell_that_one_setting_lacks_is_no_mean_over_fewer(stock):
    trials = [one for one in grid() if (one["attack"], one["bits"], one["target"]) != ("loud", 32, "1")]
    trials += [trial("loud", target="1", seed=s, bits=32, status="failed", reason="boom") for s in (0, 1)]
    (board,) = overall(stock, trials)
    table = board.table.set_index("attack")
    assert table["cells"].to_dict() == {"none": "4/4", "loud": "2/4", "quiet": "4/4"}
    expected = np.mean([GAIN["loud", b, "0", s] for b in (16, 32, 64) for s in (0, 1)])
    assert table.loc["loud", "gain"] == pytest.approx(expected)


def test_editions_are_not_averaged_with_each_other_unless_asked(stock):
    store = stock(grid(bits=(16, 32)), grid(bits=(64,), version=2))
    trials = read(store, run="all")
    (board,) = [b for b in leaderboard_of(trials) if b.title == "Attacks overall"]
    assert board.basis.context.setting_counts == (2, 3)
    assert board.basis.context.versions[0] == "1"
    (asked,) = [b for b in leaderboard_of(trials, mixed=True) if b.title == "Attacks overall"]
    assert asked.basis.context.setting_counts == (3, 3)
    assert asked.basis.context.mixed


def test_settings_that_differ_in_training_alone_are_a_sweep_and_not_averaged(stock):
    slow = [one | {"training": {"lr": 0.1}} for one in grid(("none", "loud"), bits=(16,))]
    found = leaderboard_of(read(stock([*grid(("none", "loud"), bits=(16,)), *slow])))
    assert "Attacks overall" not in {board.title for board in found}
    assert [b.basis.context.parts[-1] for b in found if b.title == "Attacks"] == ["own recipe", "lr 0.1"]
    assert len({b.heading for b in found}) == len(found)


def test_data_sets_are_not_averaged_with_each_other_and_one_setting_is_no_mean(stock):
    assert overall(stock, grid(bits=(16,)) + grid(bits=(32,), dataset="other")) == []
    assert overall(stock, grid(), by="bits") == []


def test_the_mean_over_an_axis_is_that_of_its_columns(stock):
    (board, *_) = leaderboard_of(read(stock(grid())), by="bits")
    row = board.table.set_index("attack").loc["loud"]
    assert row["mean"] == pytest.approx(np.mean([row["bits 16"], row["bits 32"], row["bits 64"]]))

"""Parts of a frame: conditions of users, and one way to ask for status, attack and defense."""

import pytest

from bench.api.errors import UserError
from bench.engine.record import Status
from reports.frame import read
from reports.selection import (
    attacked,
    axis_named,
    clean,
    defended,
    groups,
    narrow,
    of_status,
    undefended,
    with_result,
    without_result,
)
from tests.reports.board_data import trial


def test_parts_by_attack_and_defense(stock):
    trials = read(stock([trial(), trial("loud"), trial("loud", "repair"), trial("none", "repair")])).trials
    assert [list(part(trials).index) for part in (clean, attacked, undefended, defended)] == [
        [0, 3], [1, 2], [0, 1], [2, 3]]  # fmt: skip


def test_parts_by_status(stock):
    statuses = ("ok", "failed", "skipped", "ok", "missing")
    given = [trial("loud", target=str(i), status=status, reason="x") for i, status in enumerate(statuses)]
    trials = read(stock(given)).trials
    assert list(with_result(trials).index) == [0, 3]
    assert list(without_result(trials).index) == [1, 2, 4]
    assert list(of_status(trials, Status.SKIPPED).index) == [2]


def test_parts_of_nothing_are_empty(stock):
    trials = read(stock([trial()])).trials.iloc[:0]
    for part in (clean, attacked, undefended, defended, with_result, without_result):
        assert part(trials).empty
        assert list(part(trials).columns) == list(trials.columns)
    assert list(groups(trials, ["attack"])) == []


def test_groups_are_in_order_of_appearance_and_missing_values_are_equal(stock):
    trials = read(stock([trial("loud"), trial("kept"), trial("loud", seed=1)])).trials.assign(cutoff=float("nan"))
    found = [(values, list(part.index)) for values, part in groups(trials, ["attack", "cutoff"])]
    assert [(values[0], rows) for values, rows in found] == [("loud", [0, 2]), ("kept", [1])]


def test_an_axis_may_be_named_in_the_plural():
    assert [axis_named(word) for word in ("attack", "attacks", "access")] == ["attack", "attack", "access"]


MAX_TRIALS = [trial(a, d, t) for a in ("none", "loud", "loud(a=1, b=2)") for d in ("none", "repair") for t in "01"]


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["target=0"], 6),
        (["target=0,1"], 12),
        (["target=0", "target=1"], 12),
        (["attack=none"], 4),
        (["attack=loud"], 12),  # the name stands for all its variants, and none stays
        (["attack=loud(a=1, b=2)"], 8),
        (["attack=loud(a=1, b=2),loud", "targets=1"], 6),
        (["defense=repair"], 12),
    ],
)
def test_narrowing(stock, conditions, count):
    assert len(narrow(read(stock(MAX_TRIALS)), conditions).trials) == count


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("atack=loud", "did you mean 'attack'"),
        ("attack=lowd", "did you mean 'loud'"),
        ("attack", "axis=value"),
        ("attack=", "axis=value"),
    ],
)
def test_a_wrong_condition_names_the_right_one(stock, condition, words):
    with pytest.raises(UserError) as caught:
        narrow(read(stock(MAX_TRIALS)), [condition])
    assert words in str(caught.value)


def test_conditions_that_nothing_meets_together(stock):
    results = read(stock([trial("none", target="0"), trial("loud", target="1")]))
    with pytest.raises(UserError, match="attack=none target=1"):
        narrow(results, ["attack=none", "target=1"])


def test_narrowing_to_what_the_attacker_needs_keeps_the_baseline(stock):
    found = narrow(read(stock([trial(), trial("loud"), trial("kept")])), ["access=clean-label"])
    assert list(found.trials["attack"]) == ["none", "kept"]

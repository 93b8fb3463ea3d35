"""The hardest attack of each defense: which one it is, its numbers, and attacks that do not count."""

from __future__ import annotations

import pytest

from reports.boards.hardest_attack import hardest_attack
from reports.frame import read
from tests.reports.board_data import data_of, score, trial

AFTER = {  # own-mAP after each defense; .9 on the clean model, .1 without defense
    ("loud", "repair"): 0.8, ("kept", "repair"): 0.5, ("quiet", "repair"): 0.2,
    ("loud", "sieve"): 0.3, ("kept", "sieve"): 0.4, ("quiet", "sieve"): 0.3,
}  # fmt: skip


def outcome(attack: str, defense: str) -> dict:
    weak = attack == "quiet"
    before = {"gain": 0.3 if weak else 0.8, "own_map": 0.6 if weak else 0.1}
    after = {} if defense == "none" else {"own_map": AFTER[attack, defense], "gain": 0.1}
    shared = {"own_map_control": 0.9, "t_map": 0.3, "t_map_control": 0.1, "map": 0.8}
    return trial(attack, defense, metrics={**before, **shared, **after})


def trials() -> list[dict]:
    return [outcome(attack, defense) for attack in ("loud", "kept", "quiet") for defense in ("none", "repair", "sieve")]


def test_the_attack_that_takes_most_own_map_is_named_beside_the_mean(stock):
    (board,) = hardest_attack(data_of(read(stock([trial("none"), trial("none", "repair"), *trials()]))))
    assert list(board.table["defense"]) == ["repair", "sieve"]  # the defense that loses least stands first
    rows = board.table.set_index("defense")
    assert rows.loc["repair", "hardest attack"] == "kept"
    assert rows.loc["sieve", "hardest attack"] == "loud"
    assert list(rows["own-mAP lost"]) == pytest.approx([0.4, 0.6])
    assert list(rows["mean own-mAP lost"]) == pytest.approx([0.25, 0.55])
    assert list(rows["own-mAP"]) == pytest.approx([0.5, 0.3])
    assert set(rows["attacks"]) == {2}
    assert "quiet (+0.300)" in board.caption  # too weak to judge a defense by


def test_an_input_detector_is_judged_by_its_main_score(stock):
    caught = {"loud": 0.9, "kept": 0.2}
    found = [trial(attack, metrics={"gain": 0.8}) for attack in caught]
    for attack, rate in caught.items():
        shown = {"a": score(0.9) | {"tpr_5": rate}, "b": score(0.1) | {"tpr_5": 0.0}}
        about = {"gain": 0.8, "detectors": {"headline": "a", "scores": shown}}
        found.append(trial(attack, "input_detector", metrics=about))
    (board,) = hardest_attack(data_of(read(stock(found))))
    (row,) = board.table.to_dict("records")
    assert (row["defense"], row["hardest attack"], row["TPR@5%"]) == ("input_detector", "kept", 0.2)
    assert row["mean TPR@5%"] == pytest.approx(0.55)


def test_without_a_defense_there_is_no_board(stock):
    assert hardest_attack(data_of(read(stock([trial("none"), trial("loud", metrics={"gain": 0.8})])))) == []


def test_a_defense_that_no_attack_judges_stands_last_and_equal_attacks_are_all_named(stock):
    judged = [one for one in trials() if one["defense"] != "sieve" or one["attack"] == "quiet"]
    for one in judged:
        if one["defense"] == "repair":
            one["metrics"]["own_map"] = 0.5
    (board,) = hardest_attack(data_of(read(stock(judged))))
    assert list(board.table["defense"]) == ["repair", "sieve"]
    assert list(board.table["attacks"]) == [2, 0]
    assert set(board.table["hardest attack"][0].split(", ")) == {"loud", "kept"}

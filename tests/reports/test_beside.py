"""A second store's numbers beside one's own: in the same rows, and missing where there are none."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.beside import beside
from reports.board import Board


def board(rows: dict[str, float], title: str = "Attacks", setting: str = "digits", **more) -> Board:
    table = pd.DataFrame({"attack": [*rows], "cells": "1/1", "t-mAP": [*rows.values()], "gain": 0.5, "mAP": 0.9})
    metrics = {"t-mAP": "t_map", "gain": "gain", "mAP": "map"}
    return Board(title, table, "Caption.", index=("attack",), setting=setting, metrics=metrics, **more)


def test_equal_rows_stand_side_by_side_whatever_their_order():
    (made,) = beside([board({"a": 0.1, "b": 0.2, "c": 0.3})], [board({"b": 0.7, "a": 0.6, "d": 0.8})], "reference")
    assert [*made.table] == ["attack", "cells", "t-mAP", "t-mAP reference", "gain", "gain reference", "mAP"]
    assert made.table["t-mAP reference"].tolist()[:2] == [0.6, 0.7]
    assert pd.isna(made.table["t-mAP reference"][2])
    assert made.table["t-mAP"].tolist() == [0.1, 0.2, 0.3]
    assert made.metrics["t-mAP reference"] == "t_map"
    assert "not shown: 1" in made.caption


@pytest.mark.parametrize(("mine", "theirs", "joined"), [
    ([("Attacks", "x")], [("Attacks", "x")], [True]),
    ([("Attacks", "x")], [("Attacks", "y")], [False]),
    ([("Attacks", "x"), ("Attacks", "y")], [("Attacks", "y")], [False, True]),
    ([("Attacks", "x")], [("Defenses", "x")], [False]),
])  # fmt: skip
def test_boards_of_one_title_are_paired_by_their_setting(mine, theirs, joined):
    found = beside([board({"a": 0.1}, *one) for one in mine], [board({"a": 0.2}, *one) for one in theirs], "r")
    assert ["t-mAP r" in one.table for one in found] == joined
    assert ["Not in r." in one.caption for one in found] == [not one for one in joined]


def test_controls_are_not_repeated_and_a_number_that_is_not_judged_here_is_not_judged_there():
    table = pd.DataFrame({"attack": ["a"], "control": [0.1], "chance": [0.1], "none": [0.4], "too weak": [True]})
    metrics = {"control": "t_map_control", "chance": "chance", "none": "t_map"}
    one = Board("Attacks", table, "", index=("attack",), metrics=metrics, judged=("none",))
    (made,) = beside([one], [one], "r")
    assert [column for column in made.table if column.endswith(" r")] == ["none r"]
    assert made.judged == ("none", "none r")


def test_columns_that_people_do_not_see_get_no_second_number():
    (made,) = beside([board({"a": 0.1}, quiet=("t-mAP",))], [board({"a": 0.2})], "r")
    assert [column for column in made.table if column.endswith(" r")] == ["gain r", "mAP r"]

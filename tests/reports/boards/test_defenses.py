"""Defenses: what repairs and data filters leave of each attack."""

from __future__ import annotations

import pandas as pd

from reports.boards.defenses import defenses
from reports.frame import read
from tests.reports.board_data import (
    LEVEL,
    data_of,
    rows,
    trial,
)


def test_the_matrices_show_each_attack_after_each_repair_and_no_guard(stock):
    trials = [
        trial(a, d, metrics={"t_map": LEVEL[a] / (1 + (d == "repair")), "own_map": 0.5, "map": 0.8})
        for a in ("none", "loud") for d in ("none", "repair", "sieve", "input_detector")
    ]  # fmt: skip
    found = defenses(data_of(read(stock(trials))))
    assert [board.title.split(" ")[0] for board in found] == ["t-mAP", "own-mAP", "mAP"]
    table = rows(found[0])
    assert [name for name in table if name in {"none", "repair", "sieve", "input_detector"}] == [
        "none",
        "repair",
        "sieve",
    ]
    assert (table.loc["loud", "none"], table.loc["loud", "repair"]) == (0.8, 0.4)
    assert table.loc["loud", "control"] == 0.1


def test_a_matrix_leaves_a_blank_where_there_is_nothing(stock):
    trials = [
        trial("loud"),
        trial("none"),
        trial("none", "repair"),
        trial("loud", "repair", status="oom", reason="big"),
    ]
    board = defenses(data_of(read(stock(trials))))[0]
    assert pd.isna(rows(board).loc["loud", "repair"])
    assert rows(board).loc["loud", "cells"] == "1/2"
    assert board.basis.too_few == ("loud x repair",)

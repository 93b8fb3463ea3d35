"""Repairs without re-indexing: which trials have a row, and what stands beside the stored database."""

from __future__ import annotations

from reports.boards.stored_database import without_reindexing
from reports.frame import read
from tests.reports.board_data import LEVEL, data_of, trial


def numbers(attack: str, defense: str) -> dict[str, float]:
    level = LEVEL[attack]
    found = {"map": 0.9, "map_clean": 0.95, "t_map": level, "t_map_control": 0.1, "own_map": 0.6, "gain": level - 0.1,
             "own_map_control": 0.8}  # fmt: skip
    return found if defense == "none" else found | {"map_stored": 0.7, "t_map_stored": 0.2, "own_map_stored": 0.5}


def trials(*defenses: str) -> list[dict]:
    return [trial(a, d, metrics=numbers(a, d)) for a in ("none", "loud", "quiet") for d in defenses]


def test_each_repair_and_filter_has_a_row_with_both_databases_and_the_controls(stock):
    (board,) = without_reindexing(data_of(read(stock(trials("none", "repair", "sieve", "input_detector")))))
    pairs = list(zip(board.table["attack"], board.table["defense"], strict=True))
    assert pairs == [(a, d) for a in ("none", "loud", "quiet") for d in ("repair", "sieve")]
    row = board.table.set_index(["attack", "defense"]).loc["loud", "repair"]
    assert (row["stored mAP"], row["mAP"], row["clean mAP"]) == (0.7, 0.9, 0.95)
    assert (row["stored t-mAP"], row["t-mAP"], row["control"]) == (0.2, 0.8, 0.1)
    assert (row["stored own-mAP"], row["own-mAP"], row["own-mAP control"]) == (0.5, 0.6, 0.8)
    assert {name for name in board.table if "mAP" in name} - set(board.judged) == {"stored mAP", "mAP", "clean mAP"}
    assert list(board.table["too weak"]) == [False, False, False, False, True, True]
    assert "quiet (+0.200)" in board.caption


def test_without_a_repair_and_in_older_stores_there_is_no_such_board(stock):
    assert without_reindexing(data_of(read(stock(trials("none", "input_detector"))))) == []
    old = [trial("loud", d, metrics={"t_map": 0.8}) for d in ("none", "repair")]
    assert without_reindexing(data_of(read(stock(old)))) == []

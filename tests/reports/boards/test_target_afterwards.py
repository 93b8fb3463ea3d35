"""Attacks without a fixed target."""

from __future__ import annotations

from reports.boards.target_afterwards import target_afterwards
from reports.frame import read
from tests.reports.board_data import (
    data_of,
    trial,
)


def test_attacks_that_fix_no_target_are_shown_by_the_class_they_hit(stock):
    """Every attack stands under that convention then; without such an attack there is no such board."""

    def trials(targeted):
        found = {"none": (0.2, 0.2), "loud": (0.7, 0.2), "kept": (0.9, 0.3)}
        for attack, (posthoc, control) in found.items():
            metrics = {"t_map_posthoc": posthoc, "t_map_posthoc_control": control, "spread": 0.25}
            yield trial(attack, target="0", metrics=metrics, targeted=targeted or attack != "kept")

    assert target_afterwards(data_of(read(stock(list(trials(targeted=True)))))) == []
    (board,) = target_afterwards(data_of(read(stock(list(trials(targeted=False))))))
    assert board.title == "Target chosen afterwards"
    assert list(board.table["attack"]) == ["kept", "loud", "none"]
    assert list(board.table["t-mAP post hoc"]) == [0.9, 0.7, 0.2]
    assert list(board.table["post hoc control"]) == [0.3, 0.2, 0.2]
    assert list(board.table["spread"]) == [0.25] * 3

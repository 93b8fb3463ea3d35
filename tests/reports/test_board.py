"""What a board says of its columns."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.metrics import METRICS
from reports.board import COMMON, Board, Column
from reports.board_registry import all_boards

BOARD = Board(
    "Toy", pd.DataFrame({"attack": ["loud"], "gain": [0.5], "repair": [0.25], "rank": ["1-1"], "mine": [1]}), "",
    index=("attack",), setting="toy · 32 bits", metrics={"gain": "gain", "repair": "t_map"},
    columns={"rank": Column("place among attacks"), "gain": Column("own gain")},
)  # fmt: skip


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        ("rank", "place among attacks"),
        ("gain", "own gain"),
        ("attack", COMMON["attack"].meaning),
        ("repair", f"t-mAP: {METRICS['t_map'].meaning}"),
        ("mine", ""),
    ],
)
def test_meaning_of_a_column(column: str, meaning: str) -> None:
    """The board's own explanation comes first, then its metric, then what is common to all boards."""
    assert BOARD.meaning(column) == meaning


def test_heading_is_title_and_setting() -> None:
    assert BOARD.heading == "Toy · toy · 32 bits"
    assert Board("Toy", BOARD.table, "", index=("attack",)).heading == "Toy"


def test_no_board_explains_a_column_twice() -> None:
    """`n` of dose-response and `attack` of equal-strength are no mean and no attack alone."""
    twice = {(name, column) for name, kind in all_boards().items() for column in kind.columns if column in COMMON}
    assert twice == {("dose-response", "n"), ("equal-strength", "attack"), ("no-result", "key")}


def test_a_compact_board_shows_what_it_declares_and_metrics_of_plugins() -> None:
    declared = Board(
        "Toy", BOARD.table.assign(hidden=1.0), "First.\nDetail.\nWarning: x.", index=("attack",),
        compact=("rank", "gain", "absent"), details=("Detail.",), quiet=("mine",),
    )  # fmt: skip
    assert declared.compact_columns == ("attack", "rank", "gain")
    assert declared.short_caption == "First.\nWarning: x."
    assert BOARD.compact_columns == tuple(BOARD.table)  # a board that declares nothing shows all its columns

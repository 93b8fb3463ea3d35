"""Numbers of a second store in the boards of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.api.untrusted import strip_controls
from bench.metrics import METRICS
from reports.board import Board

COLUMNS = 2  # of a board that get a second number: the first that show a metric


def beside(mine: Sequence[Board], theirs: Sequence[Board], name: str) -> list[Board]:
    """The boards with the first metrics of the same rows of the same boards of another store.

    name: of the other store. A board is the same if title and setting are.
    """
    return [_joined(board, other, name) if (other := _same(board, theirs)) is not None else _alone(board, name)
            for board in mine]  # fmt: skip


def _same(board: Board, theirs: Sequence[Board]) -> Board | None:
    equal = [other for other in theirs if other.title == board.title and other.setting == board.setting]
    return equal[0] if len(equal) == 1 else None


def _joined(board: Board, other: Board, name: str) -> Board:
    index = [column for column in board.index if column in board.table and column in other.table]
    chosen = [column for column in map(str, board.table) if _compared(board, column) and column in other.table][
        :COLUMNS
    ]
    if not index or not chosen:
        return _alone(board, name)
    rows = {tuple(row[column] for column in index): row for row in other.table.to_dict("records")}
    keys = [tuple(row[column] for column in index) for row in board.table.to_dict("records")]
    table, metrics, judged = board.table.copy(), dict(board.metrics), [*board.judged]
    for column in chosen:
        said = f"{column} {strip_controls(name)}"
        values: list[Any] = [rows[key][column] if key in rows else None for key in keys]
        table.insert(list(table).index(column) + 1, said, values, allow_duplicates=False)
        metrics[said] = board.metrics[column]
        judged += [said] if column in board.judged else []
    lost = len(set(rows) - set(keys))
    lines = [f"Columns that end with {strip_controls(name)}: the same rows of {strip_controls(name)}."]
    lines += [f"Rows of {strip_controls(name)} that are not shown: {lost}."] if lost else []
    if other.basis is not None and other.basis.cells.places != (board.basis and board.basis.cells.places):
        lines.append(f"Its means are over other cells: n = {len(other.basis.cells.places)}.")
    caption = f"{board.caption}\n{' '.join(lines)}"
    pairs = ((column, f"{column} {strip_controls(name)}") for column in board.compact)
    compact = tuple(one for pair in pairs for one in pair if one in table)
    return replace(board, table=table, metrics=metrics, judged=tuple(judged), caption=caption, compact=compact)


def _compared(board: Board, column: str) -> bool:
    """Whether people see a metric in the column that tells results apart: neither a control nor a fact."""
    name = board.metrics.get(column, "")
    apart = name in METRICS and METRICS[name].direction != 0 and name not in METRICS.controls()
    return apart and column not in board.quiet


def _alone(board: Board, name: str) -> Board:
    return replace(board, caption=f"{board.caption}\nNot in {strip_controls(name)}.")

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

    name: of the other store. A board is the same if title and setting are, and if its setting is the only one of this
    title, whatever its version.
    """
    return [_joined(board, other, name) if (other := _same(board, mine, theirs)) is not None else _alone(board, name)
            for board in mine]  # fmt: skip


def _same(board: Board, mine: Sequence[Board], theirs: Sequence[Board]) -> Board | None:
    titled = [other for other in theirs if other.title == board.title]
    equal = [other for other in titled if other.setting == board.setting]
    alone = len(titled) == 1 == sum(other.title == board.title for other in mine)
    return equal[0] if len(equal) == 1 else titled[0] if alone else None


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
    if other.setting != board.setting:
        lines.append(f"Its setting: {other.setting}.")
    caption = f"{board.caption}\n{' '.join(lines)}"
    return replace(board, table=table, metrics=metrics, judged=tuple(judged), caption=caption)


def _compared(board: Board, column: str) -> bool:
    """Whether people see a metric in the column that tells results apart: neither a control nor a fact."""
    name = board.metrics.get(column, "")
    apart = name in METRICS and METRICS[name].direction != 0 and name not in METRICS.controls()
    return apart and column not in board.quiet


def _alone(board: Board, name: str) -> Board:
    return replace(board, caption=f"{board.caption}\nNot in {strip_controls(name)}.")

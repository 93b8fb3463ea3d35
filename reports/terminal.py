"""Boards in a terminal, with colours: groups of rows, and pieces if a board is too wide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from bench.api.untrusted import strip_controls
from bench.engine.record import Status
from reports.board import TOO_WEAK, Board
from reports.cells import BLANK, holds_text, words
from reports.text_table import TextTable, drawn, pieces

# From blue (0) over grey to orange (1): readable with every common colour vision, on dark and light backgrounds.
HEAT = ("#3b7dd8", "#5a8bc9", "#7b97b5", "#96988f", "#b08f66", "#cb8440", "#e67817")


def print_board(board: Board, console: Console, caption: Sequence[str]) -> None:
    """Print the board with these lines of its caption; a table wider than the console is printed in pieces."""
    cells = words(board)
    numbers = frozenset(name for name in cells if not holds_text(board, name))
    index = tuple(name for name in board.index if name in cells)
    table = TextTable(
        cells, index=index, right=numbers, fixed=numbers, rule=True,
        grouped=len(index) > 1 and bool(board.metrics), style=partial(_style, board, cells),
    )  # fmt: skip
    if board.across and len(pieces(table, console.width)) > 1 and len(cells) > len(board.table) + 1:
        table = _turned(table)
    console.print(Text(strip_controls(board.heading), style="bold"))
    for piece in drawn(table, console.width):
        console.print(piece)
    for line in caption:
        console.print(Text(line, style="yellow" if line.startswith("Warning") else "dim"))
    console.print()


def _turned(table: TextTable) -> TextTable:
    """The table with a row per column: shorter where many defenses stand beside few attacks."""
    (index,) = table.index
    names, heads = [name for name in table.cells if name != index], list(table.cells[index])
    rows = {head: [table.cells[name][i] for name in names] for i, head in enumerate(heads)}
    if len(rows) < len(heads) or "" in rows:
        return table
    return TextTable(
        {"": names, **rows}, index=("",), right=frozenset(rows), fixed=frozenset(rows), rule=True,
        style=lambda column, row: table.style(names[row], heads.index(column)) if column else "",
    )  # fmt: skip


def _style(board: Board, cells: dict[str, list[str]], name: str, row: int) -> str:
    word = cells[name][row]
    if word in {BLANK, TOO_WEAK}:
        return "dim"
    bold = "bold " if row in board.best and name in {board.index[-1], "gain", "rank"} else ""
    if name in board.heat:
        value = board.table[name].iloc[row]
        if isinstance(value, float) and math.isfinite(value):
            return bold + HEAT[round(min(max(value, 0.0), 1.0) * (len(HEAT) - 1))]
    if name == "status":
        return "green" if word == Status.OK else "dim" if word in {Status.SKIPPED, Status.MISSING} else "bold #e67817"
    return bold.strip()

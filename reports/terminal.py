"""Boards in a terminal: folded headers, groups of rows, and pieces side by side if a table is too wide."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.api.untrusted import strip_controls, strip_controls_multiline
from reports.cells import BLANK, holds_text, words
from reports.context import Board

# From blue (0) over grey to orange (1): readable with every common colour vision, on dark and light backgrounds.
HEAT = ("#3b7dd8", "#5a8bc9", "#7b97b5", "#96988f", "#b08f66", "#cb8440", "#e67817")


def print_board(board: Board, console: Console, caption: Sequence[str]) -> None:
    """Print the board with these lines of its caption; a table wider than the console is printed in pieces."""
    cells = words(board)
    console.print(Text(strip_controls(board.title), style="bold"))
    for columns in _blocks(board, cells, console.width):
        console.print(_table(board, cells, columns))
    for line in caption:
        console.print(Text(line, style="yellow" if line.startswith("Warning") else "dim"))
    console.print()


def _room(board: Board, name: str, column: Sequence[str]) -> int:
    """The width of a column in characters. Headers and texts may be folded, numbers may not."""
    longest = max([*map(len, column), 1])
    if (heading := _heading(board)) and name == board.index[1]:
        longest = max([longest + 2, *(len(str(value)) for value in board.table[heading])])
    return max(min(longest, 32) if holds_text(board, name) else longest, *map(len, name.split(" "))) + 2


def _blocks(board: Board, cells: dict[str, list[str]], width: int) -> list[list[str]]:
    """The columns in as few pieces of similar width as possible; each piece has the columns that name the row."""
    index = [name for name in board.index if name in cells and name != _heading(board)]
    rooms = {name: _room(board, name, column) for name, column in cells.items()}
    free = max(width + 2 - sum(rooms[name] for name in index), 1)
    rest = [name for name in cells if name not in board.index]
    pieces = max(1, -(-sum(rooms[name] for name in rest) // free))
    while True:
        goal = min(
            free, sum(rooms[name] for name in rest) / pieces + max([rooms[name] for name in rest], default=0) / 2
        )
        blocks: list[list[str]] = [[]]
        used = 0
        for name in rest:
            if blocks[-1] and used + rooms[name] > goal:
                blocks.append([])
                used = 0
            blocks[-1].append(name)
            used += rooms[name]
        if len(blocks) <= pieces or pieces >= len(rest):
            return [[*index, *block] for block in blocks]
        pieces += 1


def _table(board: Board, cells: dict[str, list[str]], columns: Sequence[str]) -> Table:
    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    table = Table(box=rule, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    if not columns:
        return table
    heads = {name: _fold(name, max([*map(len, cells[name]), 1])) for name in columns}
    height = max(map(len, heads.values()))
    for name in columns:
        texts = holds_text(board, name)
        head = Text(strip_controls_multiline("\n".join([""] * (height - len(heads[name])) + heads[name])))
        table.add_column(head, justify="left" if texts else "right", no_wrap=not texts, overflow="fold")
    index = [name for name in board.index if name in columns]
    heading = _heading(board)
    above: list[str] = []
    for i in range(len(board.table)):
        if heading and cells[heading][i] != (above[0] if above else None) and cells[heading][i] != cells[index[0]][i]:
            table.add_row(Text(cells[heading][i], style="italic"))
        names = [cells[name][i] for name in board.index]
        same = next((k for k, pair in enumerate(zip(names, above, strict=False)) if pair[0] != pair[1]), len(above))
        above = names
        # a name that is equal in the row above is left out, except in the last of these columns
        shown = ["" if board.index.index(name) < min(same, len(names) - 1) else cells[name][i] for name in index]
        shown[0] = f"  {shown[0]}" if heading and cells[heading][i] != cells[index[0]][i] else shown[0]
        shown += [cells[name][i] for name in columns[len(index) :]]
        pairs = zip(columns, shown, strict=True)
        table.add_row(*(Text(word, style=_style(board, name, i, word)) for name, word in pairs))
    return table


def _heading(board: Board) -> str | None:
    """The column whose values are headings of groups of rows."""
    return board.index[0] if len(board.index) > 1 and board.metrics else None


def _fold(head: str, width: int) -> list[str]:
    """The lines of a header that is folded to the width of its column."""
    lines: list[str] = []
    for word in head.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _style(board: Board, name: str, row: int, word: str) -> str:
    if word == BLANK:
        return "dim"
    bold = "bold " if row in board.best and name in {board.index[-1], "gain", "rank"} else ""
    if name in board.heat:
        value = board.table[name].iloc[row]
        if isinstance(value, float) and math.isfinite(value):
            return bold + HEAT[round(min(max(value, 0.0), 1.0) * (len(HEAT) - 1))]
    if name == "status":
        return {"ok": "green", "skipped": "dim", "missing": "dim"}.get(word, "bold #e67817")
    return bold.strip()

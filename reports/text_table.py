"""The printer of tables: boards in a terminal, lists of commands, plans. It loads no library but rich."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.box import Box
from rich.table import Table
from rich.text import Text

from bench.api.untrusted import strip_controls_multiline

RULE = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")  # a line below the heads and nothing else
BREAK = re.compile(
    r" |(?<=\S)(?=\()"
)  # where a head may be folded: at a blank, and before the parameters of a component
WIDEST = 32  # characters that a column of texts gets before its texts are folded


def _no_style(column: str, row: int) -> str:
    del column, row
    return ""


@dataclass(frozen=True)
class TextTable:
    """A table of texts. cells: the texts of each column, by its head.

    index: the columns that name a row. Every piece of a wide table has them, and a name that is equal in the row above
    is left out, except in the last of these columns. grouped: whether the first of them is a heading above its rows.
    right: right-aligned columns. fixed: columns whose texts are not folded. rule: whether a line is below the heads.
    style: the style of a cell by column and row.
    """

    cells: Mapping[str, Sequence[str]]
    index: tuple[str, ...] = ()
    grouped: bool = False
    right: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    rule: bool = False
    style: Callable[[str, int], str] = _no_style

    @property
    def heading(self) -> str | None:
        """The column whose texts are headings of groups of rows."""
        return self.index[0] if self.grouped else None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return max(map(len, self.cells.values()), default=0)


def drawn(table: TextTable, width: int) -> Iterator[Table]:
    """The table for rich, in pieces if it is wider than `width` characters."""
    for columns in pieces(table, width) if table.index else [list(table.cells)]:
        yield _piece(table, columns)


def _room(table: TextTable, name: str) -> int:
    """The width of a column in characters. Heads may be folded, and so may texts of columns that are not fixed."""
    longest = max([*map(len, table.cells[name]), 1])
    if table.heading and name == table.index[1]:
        longest = max(longest + 2, *map(len, table.cells[table.heading]), 1)
    return max(longest if name in table.fixed else min(longest, WIDEST), *map(len, BREAK.split(name))) + 2


def pieces(table: TextTable, width: int) -> list[list[str]]:
    """The columns in as few pieces of similar width as possible; each piece has the columns that name the row."""
    index = [name for name in table.index if name in table.cells and name != table.heading]
    rooms = {name: _room(table, name) for name in table.cells}
    free = max(width + 2 - sum(rooms[name] for name in index), 1)
    rest = [name for name in table.cells if name not in table.index]
    count = max(1, -(-sum(rooms[name] for name in rest) // free))
    while True:
        goal = min(free, sum(rooms[name] for name in rest) / count + max([rooms[name] for name in rest], default=0) / 2)
        found: list[list[str]] = [[]]
        used = 0
        for name in rest:
            if found[-1] and used + rooms[name] > goal:
                found.append([])
                used = 0
            found[-1].append(name)
            used += rooms[name]
        if len(found) <= count or count >= len(rest):
            return [[*index, *piece] for piece in found]
        count += 1


def _piece(table: TextTable, columns: Sequence[str]) -> Table:
    cells = table.cells
    made = Table(
        box=RULE if table.rule else None, pad_edge=False, padding=(0, 1 if table.rule else 2, 0, 0), show_edge=False,
        header_style="bold", show_header=any(map(str.strip, columns)),
    )  # fmt: skip
    # the heads of a table that can be in pieces are folded, so that there are few pieces
    heads = {name: folded(name, max([*map(len, cells[name]), 1])) if table.index else [name] for name in columns}
    height = max(map(len, heads.values()), default=0)
    for name in columns:
        head = Text(strip_controls_multiline("\n".join([""] * (height - len(heads[name])) + heads[name])))
        made.add_column(
            head, justify="right" if name in table.right else "left", no_wrap=name in table.fixed, overflow="fold",
            min_width=None if table.index else max(map(len, name.split()), default=0),
        )  # fmt: skip
    index = [name for name in table.index if name in columns]
    heading = table.heading
    above: list[str] = []
    for i in range(table.rows):
        inside = heading is not None and cells[heading][i] != cells[index[0]][i]
        if heading is not None and inside and cells[heading][i] != (above[0] if above else None):
            made.add_row(Text(cells[heading][i], style="italic"))
        names = [cells[name][i] for name in table.index]
        same = next((k for k, pair in enumerate(zip(names, above, strict=False)) if pair[0] != pair[1]), len(above))
        above = names
        shown = ["" if table.index.index(name) < min(same, len(names) - 1) else cells[name][i] for name in index]
        if inside:
            shown[0] = f"  {shown[0]}"
        shown += [cells[name][i] for name in columns[len(index) :]]
        pairs = zip(columns, shown, strict=True)
        made.add_row(*(Text(strip_controls_multiline(word), style=table.style(name, i)) for name, word in pairs))
    return made


def folded(head: str, width: int) -> list[str]:
    """The lines of a head that is folded to the width of its column."""
    lines: list[str] = []
    for word in BREAK.split(head):
        between = "" if word.startswith("(") else " "
        if lines and len(lines[-1]) + len(between) + len(word) <= width:
            lines[-1] += between + word
        else:
            lines.append(word)
    return lines

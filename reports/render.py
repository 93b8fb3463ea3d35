"""Boards as text: for the terminal, and as Markdown, LaTeX, CSV and JSON.

Texts of records (labels, reasons) are untrusted: control characters are removed, and each format escapes the rest.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from io import StringIO, TextIOWrapper
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.text import Text

from bench.api.errors import unknown
from bench.api.untrusted import strip_controls, strip_controls_multiline
from reports.arrange import Layout, arranged
from reports.board import Board
from reports.cells import caption_lines, holds_text, words
from reports.labels import Names, written_in_papers
from reports.latex import latex
from reports.terminal import print_board

Format = Literal["rich", "markdown", "latex", "csv", "json"]
WHOLE = Layout(wide=True)
ENDS = {"markdown": ".md", "latex": ".tex", "csv": ".csv", "json": ".json"}
NOTHING: Mapping[str, str] = MappingProxyType({})
LONGEST_NAME = 80  # characters of a file

PARAMETERS = "Parameters that differ from the default:"  # above the legend of short names
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")


def render(
    boards: Sequence[Board],
    format_: str,
    *,
    file: StringIO | TextIOWrapper | None = None,
    width: int | None = None,
    layout: Layout = WHOLE,
    label: str = "",
) -> None:
    """Print boards to a file, by default to standard output; UserError for an unknown format.

    `rich` prints plain text if the output is no terminal. label: of the first table of LaTeX; later ones get a number.
    """
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    if format_ != "rich":
        _write(console, as_text(boards, format_, layout, label))
        return
    said: set[str] = set()
    shown = for_people(arranged(boards, layout), parameters=layout.wide)
    for board in shown:
        lines = _news(board, said)
        if console.is_terminal:
            print_board(board, console, lines)
        else:
            _write(console, plain(board, lines))
    if _shorter(boards, layout):
        line = "These are the main columns and notes. --wide prints all of them."
        console.print(Text(line, style="dim"), soft_wrap=not console.is_terminal)


def as_text(boards: Sequence[Board], format_: str, layout: Layout = WHOLE, label: str = "") -> str:
    """Boards in one of the formats of WRITERS; UserError for another one."""
    return _as_text(_prepared(boards, format_, layout), format_, label, short=not layout.wide)


def files(boards: Sequence[Board], format_: str, layout: Layout = WHOLE, label: str = "") -> dict[str, str]:
    """The text of each board by the name of its file, for example `attacks.csv`."""
    found: dict[str, str] = {}
    prepared = _prepared(boards, format_, layout)
    settings = [set(board.setting.split(" · ")) for board in prepared if board.setting]
    shared = set.intersection(*settings) if settings else set()
    for board in prepared:
        words = " ".join([board.title, *(part for part in board.setting.split(" · ") if part not in shared)])
        name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:LONGEST_NAME] or "board"
        path = f"{name}{ENDS[format_]}"
        if path in found:
            path = f"{name}-{len(found) + 1}{ENDS[format_]}"
        more = f"{label}-{len(found) + 1}" if label and found else label
        found[path] = _as_text([board], format_, more, short=not layout.wide, alone=True)
    return found


def _prepared(boards: Sequence[Board], format_: str, layout: Layout) -> list[Board]:
    if format_ not in WRITERS:
        raise unknown("format", format_, [*WRITERS, "rich"])
    found = arranged(boards, layout, whole=format_ in {"csv", "json"})
    if format_ in {"csv", "json"}:
        return found
    if format_ == "latex" and not layout.columns:  # keys say nothing in a paper
        found = [replace(board, quiet=(*board.quiet, "key")) for board in found]
    return for_people(found, written=written_in_papers() if format_ == "latex" else NOTHING, parameters=layout.wide)


def _as_text(boards: Sequence[Board], format_: str, label: str, *, short: bool, alone: bool = False) -> str:
    if format_ == "latex":
        return latex(boards, label, short=short)
    if alone and format_ == "csv":
        return csv_of_table(boards[0].table)
    return WRITERS[format_](boards)


def _shorter(boards: Sequence[Board], layout: Layout) -> bool:
    """Whether a compact board leaves out a column or a line."""
    if layout.wide or layout.columns:
        return False
    return any(
        board.short_caption != board.caption
        or len(board.compact_columns) < len(replace(board, compact=()).compact_columns)
        for board in boards
    )


def for_people(
    boards: Sequence[Board], *, written: Mapping[str, str] = NOTHING, parameters: bool = True
) -> list[Board]:
    """Boards with short names, which are the same on all boards.

    written: how papers write the names of components. parameters: whether the first caption lists the parameters that
    short names omit.
    """
    names = Names.of({spec for board in boards for spec in board.components}, written)
    if not names.legend and not written:
        return list(boards)
    found = [_renamed(board, names, written) for board in boards]
    notes = [*names.warnings, *([PARAMETERS, *names.parameters] if names.parameters and parameters else [])]
    return [replace(one, caption="\n".join([one.caption, *notes])) if i == 0 else one for i, one in enumerate(found)]


def _renamed(board: Board, names: Names, written: Mapping[str, str]) -> Board:
    table = board.table.copy()
    # the reason of a record stays unchanged
    texts = [c for c in map(str, table) if c != "reason" and any(isinstance(value, str) for value in table[c])]
    table[texts] = table[texts].map(lambda value: names.within(value) if isinstance(value, str) else value)
    heads = {str(name): names.within(str(name)) for name in table}
    above = {one: _written(text, written) for one, text in board.above.items()}
    heads |= {one: f"{names.within(one.removesuffix(f' {board.above[one]}'))} {text}" for one, text in above.items()}
    if len(set(heads.values())) < len(heads):  # a defense may have the name of a metric
        heads = {name: name for name in heads}
    return replace(
        board,
        title=names.within(board.title),
        setting=" · ".join(_written(names.within(part), written) for part in board.setting.split(" · ")),
        table=table.rename(columns=heads),
        caption=names.within(board.caption),
        metrics={heads.get(name, name): metric for name, metric in board.metrics.items()},
        columns={heads.get(name, name): column for name, column in board.columns.items()},
        heat=tuple(heads.get(name, name) for name in board.heat),
        compact=tuple(heads.get(name, name) for name in board.compact),
        judged=tuple(heads.get(name, name) for name in board.judged),
        bold=frozenset((i, heads.get(name, name)) for i, name in board.bold),
        above={heads.get(name, name): text for name, text in above.items()},
    )


def _written(part: str, written: Mapping[str, str]) -> str:
    """A part of a setting with the name of its component as papers write it."""
    name, bracket, rest = part.partition("(")
    return written.get(name, name) + bracket + rest


def _write(console: Console, text: str) -> None:
    text = strip_controls_multiline(text)  # column names are untrusted too
    console.file.write(text if text.endswith("\n") else text + "\n")


def _news(board: Board, said: set[str]) -> list[str]:
    """The lines of a caption that no earlier board had."""
    lines = caption_lines(board.caption)
    fresh = [line for line in lines if line not in said]
    said |= set(lines)
    return fresh if len(fresh) == len(lines) else [*fresh, "The other notes are the same as above."]


def plain(board: Board, caption: Sequence[str] | None = None) -> str:
    """Aligned columns without colour or frame, of any width."""
    cells = words(board)
    left = {name for name in cells if holds_text(board, name)}
    widths = {name: max(len(name), *map(len, cells[name]), 1) for name in cells}

    def line(parts: Sequence[str]) -> str:
        pairs = zip(cells, parts, strict=True)
        return "  ".join(p.ljust(widths[c]) if c in left else p.rjust(widths[c]) for c, p in pairs).rstrip()

    rows = [line(row) for row in zip(*cells.values(), strict=True)]
    rule = "  ".join("-" * widths[name] for name in cells)
    return "\n".join(
        [
            strip_controls(board.heading),
            "",
            line(list(cells)),
            rule,
            *rows,
            "",
            *(caption or caption_lines(board.caption)),
            "",
            "",
        ]
    )


def markdown(boards: Sequence[Board]) -> str:
    """A heading, a pipe table and the caption per board."""
    from tabulate import tabulate

    parts = []
    for board in boards:
        cells = {_mark(name): [_mark(value) for value in column] for name, column in words(board).items()}
        align = ["left" if holds_text(board, name) else "right" for name in words(board)]
        rows = [list(row) for row in zip(*cells.values(), strict=True)]
        _embolden(board, rows)
        table = tabulate(rows, headers=list(cells), tablefmt="pipe", colalign=align, disable_numparse=True)
        caption = "\n".join(f"{_mark(line)}  " for line in caption_lines(board.caption))
        parts.append(f"### {_mark(strip_controls(board.heading))}\n\n{table}\n\n{caption}\n")
    return "\n".join(parts)


def csv(boards: Sequence[Board]) -> str:
    """All boards in one table: the title of the board, then the columns of all boards; missing values are empty."""
    if not boards:
        return ""
    tables = []
    for board in boards:
        table = board.table.map(_harmless)
        table.columns = pd.Index(_distinct(table.columns, taken=["board"]))
        tables.append(table.assign(board=_harmless(board.heading)))
    columns = ["board", *dict.fromkeys(name for table in tables for name in table.columns if name != "board")]
    records = [row for table in tables for row in table.to_dict("records")]
    return str(pd.DataFrame(records, columns=columns).to_csv(index=False))


def csv_of_table(table: pd.DataFrame) -> str:
    """A table of numbers and texts of strangers."""
    found = table.copy()
    for at, dtype in enumerate(table.dtypes):
        if not is_numeric_dtype(dtype):
            found.isetitem(at, [_harmless(value) for value in found.iloc[:, at]])
    found.columns = pd.Index(_distinct(table.columns, taken=[]))
    return str(found.to_csv(index=False))


def as_json(boards: Sequence[Board]) -> str:
    """A list of {title, caption, rows}; numbers have full precision, missing numbers are null."""
    found = [
        {
            "title": strip_controls(board.heading),
            "caption": "\n".join(caption_lines(board.caption)),
            "rows": [
                {str(name): _finite(value) for name, value in row.items()}
                for row in _cleaned(board.table).to_dict("records")
            ],
        }
        for board in boards
    ]
    return json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)


WRITERS: Mapping[str, Callable[[Sequence[Board]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv,
    "json": as_json,
}


def _cleaned(table: pd.DataFrame) -> pd.DataFrame:
    found = table.map(lambda value: strip_controls(value) if isinstance(value, str) else value)
    found.columns = pd.Index([strip_controls(str(name)) for name in table.columns])
    return found


def _harmless(value: Any) -> Any:
    """The value; a text that a spreadsheet would run as a formula gets an apostrophe.

    Blanks before the formula and signs of double width do not stop all spreadsheets.
    """
    if not isinstance(value, str):
        return value
    text = strip_controls(value)
    return f"'{text}" if unicodedata.normalize("NFKC", text.lstrip()[:1]) in {"=", "+", "-", "@"} else text


def _distinct(names: Iterable[Any], taken: Collection[str]) -> list[str]:
    """Names of columns for a spreadsheet; one that is taken gets a number."""
    found = list(taken)
    for name in names:
        text = str(_harmless(str(name)))
        number = 1
        while text in found:
            number += 1
            text = f"{_harmless(str(name))} {number}"
        found.append(text)
    return found[len(taken) :]


def _finite(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _mark(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _embolden(board: Board, rows: list[list[str]]) -> None:
    columns = list(words(board))
    named = {(i, columns.index(board.index[-1])) for i in board.best if board.index[-1] in columns}
    for i, place in named | {(i, columns.index(name)) for i, name in board.bold if name in columns}:
        rows[i][place] = f"**{rows[i][place]}**"

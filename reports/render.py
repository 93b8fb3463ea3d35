"""Boards as text: for the terminal, and as Markdown, LaTeX, CSV and JSON.

Texts of records (labels, reasons) are untrusted: control characters are removed, and each format escapes the rest.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from io import StringIO, TextIOWrapper
from typing import Any, Literal

import pandas as pd
from rich.console import Console

from bench.api.errors import unknown
from bench.api.untrusted import strip_controls, strip_controls_multiline
from reports.board import Board
from reports.cells import caption_lines, holds_text, words
from reports.labels import Names
from reports.terminal import print_board

Format = Literal["rich", "markdown", "latex", "csv", "json"]

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "·": r"$\cdot$",
          "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}"}  # fmt: skip
PARAMETERS = "Parameters that differ from the default:"  # above the legend of short names
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")


def render(
    boards: Sequence[Board], format_: str, *, file: StringIO | TextIOWrapper | None = None, width: int | None = None
) -> None:
    """Print boards to a file, by default to standard output; UserError for an unknown format.

    `rich` prints plain text if the output is no terminal.
    """
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    boards = boards if format_ in {"csv", "json"} else for_people(boards)
    if format_ == "rich":
        said: set[str] = set()
        for board in boards:
            lines = _news(board, said)
            if console.is_terminal:
                print_board(board, console, lines)
            else:
                _write(console, plain(board, lines))
        return
    writers = {"markdown": markdown, "latex": latex, "csv": csv, "json": as_json}
    if format_ not in writers:
        raise unknown("format", format_, [*writers, "rich"])
    _write(console, writers[format_](boards))


def for_people(boards: Sequence[Board]) -> list[Board]:
    """Boards with short names, which are the same on all boards; the first caption lists the omitted parameters."""
    names = Names.of(spec for board in boards for spec in board.components)
    if not names.legend:
        return list(boards)
    first, *others = (_renamed(board, names) for board in boards)
    notes = [*names.warnings, *([PARAMETERS] if names.parameters else []), *names.parameters]
    return [replace(first, caption="\n".join([first.caption, *notes])), *others]


def _renamed(board: Board, names: Names) -> Board:
    table = board.table.copy()
    # the reason of a record stays unchanged
    texts = [c for c in map(str, table) if c != "reason" and any(isinstance(value, str) for value in table[c])]
    table[texts] = table[texts].map(lambda value: names.within(value) if isinstance(value, str) else value)
    heads = {str(name): names.within(str(name)) for name in table}
    if len(set(heads.values())) < len(heads):  # a defense may have the name of a metric
        heads = {name: name for name in heads}
    return replace(
        board,
        title=names.within(board.title),
        setting=names.within(board.setting),
        table=table.rename(columns=heads),
        caption=names.within(board.caption),
        metrics={heads.get(name, name): metric for name, metric in board.metrics.items()},
        columns={heads.get(name, name): column for name, column in board.columns.items()},
        heat=tuple(heads.get(name, name) for name in board.heat),
        compact=tuple(heads.get(name, name) for name in board.compact),
        judged=tuple(heads.get(name, name) for name in board.judged),
    )


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
        _embolden(board, rows, "**{}**")
        table = tabulate(rows, headers=list(cells), tablefmt="pipe", colalign=align, disable_numparse=True)
        caption = "\n".join(f"{_mark(line)}  " for line in caption_lines(board.caption))
        parts.append(f"### {_mark(strip_controls(board.heading))}\n\n{table}\n\n{caption}\n")
    return "\n".join(parts)


def latex(boards: Sequence[Board]) -> str:
    """One `table` per board, scaled to the text width if it is wider; needs the packages booktabs and graphicx."""
    parts = []
    for board in boards:
        cells = words(board)
        align = "".join("l" if holds_text(board, name) else "r" for name in cells)
        rows = [[_tex(value) for value in row] for row in zip(*cells.values(), strict=True)]
        _embolden(board, rows, r"\textbf{{{}}}")
        body = "\n".join("    " + " & ".join(row) + r" \\" for row in rows)
        head = " & ".join(map(_tex, cells))
        caption = " ".join(_tex(line) for line in caption_lines(board.caption))
        parts.append(
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{_tex(strip_controls(board.heading))}. {caption}}}\n"
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
            f"  \\begin{{tabular}}{{{align}}}\n    \\toprule\n    {head} \\\\\n"
            f"    \\midrule\n{body}\n    \\bottomrule\n"
            "  \\end{tabular}}\n\\end{table}\n"
        )
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


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _embolden(board: Board, rows: list[list[str]], pattern: str) -> None:
    for i in board.best:
        place = list(words(board)).index(board.index[-1])
        rows[i][place] = pattern.format(rows[i][place])

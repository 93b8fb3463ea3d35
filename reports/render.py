"""Boards as text: for the terminal, and as Markdown, LaTeX, CSV and JSON.

Text of records (labels, reasons) is somebody else's: it is cleaned of control characters and escaped per format.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO, TextIOWrapper
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.api.errors import unknown
from bench.api.untrusted import strip_controls, strip_controls_multiline
from bench.metrics import METRICS
from reports.context import HALF, Board
from reports.labels import Names

Format = Literal["rich", "markdown", "latex", "csv", "json"]

BLANK = "-"
# from blue (0) over grey to orange (1): told apart with every common colour vision, on dark and light ground
HEAT = ("#3b7dd8", "#5a8bc9", "#7b97b5", "#96988f", "#b08f66", "#cb8440", "#e67817")
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "·": r"$\cdot$",
          "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}"}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")


def render(
    boards: Sequence[Board], format_: str, *, file: StringIO | TextIOWrapper | None = None, width: int | None = None
) -> None:
    """Print boards to a file, standard output by default; `rich` is plain text where that is not a terminal."""
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    boards = boards if format_ in {"csv", "json"} else for_people(boards)
    if format_ == "rich":
        said: set[str] = set()
        for board in boards:
            lines = _news(board, said)
            if console.is_terminal:
                _print(board, console, lines)
            else:
                _write(console, plain(board, lines))
        return
    writers = {"markdown": markdown, "latex": latex, "csv": csv, "json": as_json}
    if format_ not in writers:
        raise unknown("format", format_, [*writers, "rich"])
    _write(console, writers[format_](boards))


def for_people(boards: Sequence[Board]) -> list[Board]:
    """Boards with short names, the same on all of them; the first says what these leave out."""
    names = Names.of(spec for board in boards for spec in board.components)
    if not names.legend:
        return list(boards)
    first, *others = (_renamed(board, names) for board in boards)
    return [replace(first, caption="\n".join([first.caption, *names.legend])), *others]


def _renamed(board: Board, names: Names) -> Board:
    table = board.table.copy()
    # what a record says stays as it was said
    texts = [c for c in map(str, table) if c != "reason" and any(isinstance(value, str) for value in table[c])]
    table[texts] = table[texts].map(lambda value: names.within(value) if isinstance(value, str) else value)
    heads = {str(name): names.within(str(name)) for name in table}
    if len(set(heads.values())) < len(heads):  # a defense could be called like a metric
        heads = {name: name for name in heads}
    return replace(
        board,
        title=names.within(board.title),
        table=table.rename(columns=heads),
        caption=names.within(board.caption),
        metrics={heads.get(name, name): metric for name, metric in board.metrics.items()},
        heat=tuple(heads.get(name, name) for name in board.heat),
    )


def _write(console: Console, text: str) -> None:
    text = strip_controls_multiline(text)  # names are columns too
    console.file.write(text if text.endswith("\n") else text + "\n")


def _news(board: Board, said: set[str]) -> list[str]:
    """The lines of a caption that no board above it had."""
    lines = _lines(board.caption)
    fresh = [line for line in lines if line not in said]
    said |= set(lines)
    return fresh if len(fresh) == len(lines) else [*fresh, "Otherwise as above."]


def plain(board: Board, caption: Sequence[str] | None = None) -> str:
    """Aligned columns without colour or frame, as wide as they have to be."""
    cells = words(board)
    left = {name for name in cells if _texts(board, name)}
    widths = {name: max(len(name), *map(len, cells[name]), 1) for name in cells}

    def line(parts: Sequence[str]) -> str:
        pairs = zip(cells, parts, strict=True)
        return "  ".join(p.ljust(widths[c]) if c in left else p.rjust(widths[c]) for c, p in pairs).rstrip()

    rows = [line(row) for row in zip(*cells.values(), strict=True)]
    rule = "  ".join("-" * widths[name] for name in cells)
    return "\n".join(
        [
            strip_controls(board.title),
            "",
            line(list(cells)),
            rule,
            *rows,
            "",
            *(caption or _lines(board.caption)),
            "",
            "",
        ]
    )


def markdown(boards: Sequence[Board]) -> str:
    from tabulate import tabulate

    parts = []
    for board in boards:
        cells = {_mark(name): [_mark(value) for value in column] for name, column in words(board).items()}
        align = ["left" if _texts(board, name) else "right" for name in words(board)]
        rows = [list(row) for row in zip(*cells.values(), strict=True)]
        _embolden(board, rows, "**{}**")
        table = tabulate(rows, headers=list(cells), tablefmt="pipe", colalign=align, disable_numparse=True)
        caption = "\n".join(f"{_mark(line)}  " for line in _lines(board.caption))
        parts.append(f"### {_mark(strip_controls(board.title))}\n\n{table}\n\n{caption}\n")
    return "\n".join(parts)


def latex(boards: Sequence[Board]) -> str:
    """One `table` per board, made smaller where it is wider than the text; needs the packages booktabs and graphicx."""
    parts = []
    for board in boards:
        cells = words(board)
        align = "".join("l" if _texts(board, name) else "r" for name in cells)
        rows = [[_tex(value) for value in row] for row in zip(*cells.values(), strict=True)]
        _embolden(board, rows, r"\textbf{{{}}}")
        body = "\n".join("    " + " & ".join(row) + r" \\" for row in rows)
        head = " & ".join(map(_tex, cells))
        caption = " ".join(_tex(line) for line in _lines(board.caption))
        parts.append(
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{_tex(strip_controls(board.title))}. {caption}}}\n"
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
            f"  \\begin{{tabular}}{{{align}}}\n    \\toprule\n    {head} \\\\\n"
            f"    \\midrule\n{body}\n    \\bottomrule\n"
            "  \\end{tabular}}\n\\end{table}\n"
        )
    return "\n".join(parts)


def csv(boards: Sequence[Board]) -> str:
    """All boards in one table: the board's title, then the columns of all, empty where a board has none."""
    if not boards:
        return ""
    tables = [_cleaned(board.table).map(_harmless).assign(board=strip_controls(board.title)) for board in boards]
    columns = ["board", *dict.fromkeys(name for table in tables for name in table.columns if name != "board")]
    records = [row for table in tables for row in table.to_dict("records")]
    return str(pd.DataFrame(records, columns=columns).to_csv(index=False))


def as_json(boards: Sequence[Board]) -> str:
    """[{title, caption, rows}], numbers in full precision, null where there is none."""
    found = [
        {
            "title": strip_controls(board.title),
            "caption": "\n".join(_lines(board.caption)),
            "rows": [
                {str(name): _finite(value) for name, value in row.items()}
                for row in _cleaned(board.table).to_dict("records")
            ],
        }
        for board in boards
    ]
    return json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)


# The terminal


def _print(board: Board, console: Console, caption: Sequence[str]) -> None:
    cells = words(board)
    console.print(Text(strip_controls(board.title), style="bold"))
    for columns in _blocks(board, cells, console.width):
        console.print(_table(board, cells, columns))
    for line in caption:
        console.print(Text(line, style="yellow" if line.startswith("Warning") else "dim"))
    console.print()


def _room(board: Board, name: str, column: Sequence[str]) -> int:
    """Columns of the terminal that a column takes. Headers and texts fold, numbers never do."""
    longest = max([*map(len, column), 1])
    if (heading := _heading(board)) and name == board.index[1]:
        longest = max(longest + 2, *(len(str(value)) for value in board.table[heading]))
    return max(min(longest, 32) if _texts(board, name) else longest, *map(len, name.split(" "))) + 2


def _blocks(board: Board, cells: dict[str, list[str]], width: int) -> list[list[str]]:
    """Columns in as few pieces as fit the width, about equally wide; the columns that name the row are in each."""
    index = [name for name in board.index if name in cells and name != _heading(board)]
    rooms = {name: _room(board, name, column) for name, column in cells.items()}
    free = max(width + 2 - sum(rooms[name] for name in index), 1)
    rest = [name for name in cells if name not in board.index]
    pieces = -(-sum(rooms[name] for name in rest) // free)
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
    from rich.box import Box

    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    table = Table(box=rule, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    heads = {name: _fold(name, max([*map(len, cells[name]), 1])) for name in columns}
    height = max(map(len, heads.values()))
    for name in columns:
        texts = _texts(board, name)
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
        # what the row above says already is not said again, the last column of the name aside
        shown = ["" if board.index.index(name) < min(same, len(names) - 1) else cells[name][i] for name in index]
        shown[0] = f"  {shown[0]}" if heading and cells[heading][i] != cells[index[0]][i] else shown[0]
        shown += [cells[name][i] for name in columns[len(index) :]]
        pairs = zip(columns, shown, strict=True)
        table.add_row(*(Text(word, style=_style(board, name, i, word)) for name, word in pairs))
    return table


def _heading(board: Board) -> str | None:
    """The column whose values head groups of rows in the terminal."""
    return board.index[0] if len(board.index) > 1 and board.metrics else None


def _fold(head: str, width: int) -> list[str]:
    """A header on as many lines as its column is too narrow for."""
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


# Words


def words(board: Board) -> dict[str, list[str]]:
    """Every cell as the reader sees it; the half-width of an interval joins the number it belongs to."""
    found: dict[str, list[str]] = {}
    for name in board.table.columns:
        if name.endswith(HALF) or name in board.quiet:
            continue
        if name == "value" and board.by_row:
            column = [number(value, metric) for value, metric in zip(board.table[name], board.by_row, strict=True)]
        else:
            column = [number(value, board.metrics.get(name)) for value in board.table[name]]
        if name + HALF in board.table:
            halves = [number(value, "ssim") for value in board.table[name + HALF]]
            column = [
                f"{value} ± {half}" if half != BLANK else value + " " * (8 if set(halves) != {BLANK} else 0)
                for value, half in zip(column, halves, strict=True)
            ]
        found[str(name)] = column
    return found


def number(value: Any, metric: str | None) -> str:
    """Shares with three decimals, differences with a sign, counts as integers, decibels with one decimal."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "inf" if isinstance(value, float) and math.isinf(value) else BLANK
    if isinstance(value, str):
        return strip_controls(value)
    if isinstance(value, int) or (metric is None and float(value).is_integer()):
        return f"{int(value)}"
    if metric is None or METRICS[metric].unit == "dB":
        return f"{value:.3g}" if metric is None and abs(value) < 1 else f"{value:.1f}"
    if METRICS[metric].unit and math.isinf(METRICS[metric].high):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    sign = "+" if METRICS[metric].low == -1 and metric != "ssim" else ""
    text = f"{value:{sign}.3f}"
    return text.replace("-0.000", "+0.000" if sign else "0.000")


def _lines(caption: str) -> list[str]:
    return [strip_controls(line) for line in caption.split("\n") if line]


def _texts(board: Board, name: str) -> bool:
    """Whether a column holds words rather than numbers."""
    if name in board.metrics or name in {"cells", "rank"}:
        return False
    return name in board.index or name == "key" or any(isinstance(value, str) for value in board.table[name])


def _cleaned(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda value: strip_controls(value) if isinstance(value, str) else value)


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value


def _finite(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _mark(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _embolden(board: Board, rows: list[list[str]], pattern: str) -> None:
    place = list(words(board)).index(board.index[-1])
    for i in board.best:
        rows[i][place] = pattern.format(rows[i][place])

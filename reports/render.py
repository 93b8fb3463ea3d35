"""Boards as text: for the terminal, and as Markdown, LaTeX, CSV and JSON.

Text of records (labels, reasons) is somebody else's: it is cleaned of control characters and escaped per format.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.api.errors import unknown
from bench.metrics import METRICS
from reports.boards import HALF, Board

Format = Literal["rich", "markdown", "latex", "csv", "json"]

BLANK = "-"
# from blue (0) over grey to orange (1): told apart with every common colour vision, on dark and light ground
HEAT = ("#3b7dd8", "#5a8bc9", "#7b97b5", "#96988f", "#b08f66", "#cb8440", "#e67817")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "·": r"$\cdot$",
          "<": r"\textless{}", ">": r"\textgreater{}"}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")


def render(boards: Sequence[Board], format_: str, *, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print boards to a file, standard output by default; `rich` is plain text where that is not a terminal."""
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    if format_ == "rich":
        for board in boards:
            if console.is_terminal:
                _print(board, console)
            else:
                _write(console, plain(board))
        return
    writers = {"markdown": markdown, "latex": latex, "csv": csv, "json": as_json}
    if format_ not in writers:
        raise unknown("format", format_, [*writers, "rich"])
    _write(console, writers[format_](boards))


def _write(console: Console, text: str) -> None:
    console.file.write(text if text.endswith("\n") else text + "\n")


def plain(board: Board) -> str:
    """Aligned columns without colour or frame, as wide as they have to be."""
    cells = words(board)
    left = {name for name in cells if _texts(board, name)}
    widths = {name: max(len(name), *map(len, cells[name]), 1) for name in cells}

    def line(parts: Sequence[str]) -> str:
        pairs = zip(cells, parts, strict=True)
        return "  ".join(p.ljust(widths[c]) if c in left else p.rjust(widths[c]) for c, p in pairs).rstrip()

    rows = [line(row) for row in zip(*cells.values(), strict=True)]
    rule = "  ".join("-" * widths[name] for name in cells)
    return "\n".join([clean(board.title), "", line(list(cells)), rule, *rows, "", *_lines(board.caption), "", ""])


def markdown(boards: Sequence[Board]) -> str:
    from tabulate import tabulate  # noqa: PLC0415 - only where it is used

    parts = []
    for board in boards:
        cells = {_mark(name): [_mark(value) for value in column] for name, column in words(board).items()}
        align = ["left" if _texts(board, name) else "right" for name in words(board)]
        rows = [list(row) for row in zip(*cells.values(), strict=True)]
        _embolden(board, rows, "**{}**")
        table = tabulate(rows, headers=list(cells), tablefmt="pipe", colalign=align, disable_numparse=True)
        caption = "\n".join(f"{_mark(line)}  " for line in _lines(board.caption))
        parts.append(f"### {_mark(clean(board.title))}\n\n{table}\n\n{caption}\n")
    return "\n".join(parts)


def latex(boards: Sequence[Board]) -> str:
    """One `table` with booktabs rules per board; needs \\usepackage{booktabs}."""
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
            f"  \\caption{{{_tex(clean(board.title))}. {caption}}}\n"
            f"  \\begin{{tabular}}{{{align}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n{body}\n    \\bottomrule\n"
            "  \\end{tabular}\n\\end{table}\n"
        )
    return "\n".join(parts)


def csv(boards: Sequence[Board]) -> str:
    """All boards in one table: the board's title, then the columns of all, empty where a board has none. Full precision."""
    if not boards:
        return ""
    tables = [_cleaned(board.table).assign(board=clean(board.title)) for board in boards]
    columns = ["board", *dict.fromkeys(name for table in tables for name in table.columns if name != "board")]
    records = [row for table in tables for row in table.to_dict("records")]
    return str(pd.DataFrame(records, columns=columns).to_csv(index=False))


def as_json(boards: Sequence[Board]) -> str:
    """[{title, caption, rows}], numbers in full precision, null where there is none."""
    found = [
        {
            "title": clean(board.title),
            "caption": "\n".join(_lines(board.caption)),
            "rows": [
                {name: _finite(value) for name, value in row.items()}
                for row in _cleaned(board.table).to_dict("records")
            ],
        }
        for board in boards
    ]
    return json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)


# The terminal


def _print(board: Board, console: Console) -> None:
    cells = words(board)
    console.print(Text(clean(board.title), style="bold"))
    for columns in _blocks(board, cells, console.width):
        console.print(_table(board, cells, columns))
    for line in _lines(board.caption):
        console.print(Text(line, style="yellow" if line.startswith("Warning") else "dim"))
    console.print()


def _blocks(board: Board, cells: dict[str, list[str]], width: int) -> Iterator[list[str]]:
    """Columns in pieces that fit the width, the columns that name the row repeated. Texts fold, numbers never do."""
    index = [name for name in board.index if name in cells]

    def room(name: str) -> int:
        longest = max(len(name), *map(len, cells[name]), 1)
        return (min(longest, 24) if _texts(board, name) else longest) + 2

    start = used = sum(map(room, index))
    block: list[str] = []
    for name in cells:
        if name in index:
            continue
        if block and used + room(name) > width:
            yield [*index, *block]
            block, used = [], start
        block.append(name)
        used += room(name)
    yield [*index, *block]


def _table(board: Board, cells: dict[str, list[str]], columns: Sequence[str]) -> Table:
    from rich.box import Box  # noqa: PLC0415 - only where it is used

    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    table = Table(box=rule, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold")
    for name in columns:
        texts = _texts(board, name)
        table.add_column(Text(name), justify="left" if texts else "right", no_wrap=not texts, overflow="fold")
    above: list[str] = []
    for i in range(len(board.table)):
        names = [cells[name][i] for name in board.index if name in columns]
        same = next((k for k, pair in enumerate(zip(names, above, strict=False)) if pair[0] != pair[1]), len(above))
        if above and same == 0 and len(board.index) > 1 and board.metrics:
            table.add_row()
        above = names
        row = []
        for name in columns:
            word = cells[name][i]
            place = board.index.index(name) if name in board.index else -1
            if 0 <= place < min(same, len(board.index) - 1):
                word = ""
            row.append(Text(word, style=_style(board, name, i, word)))
        table.add_row(*row)
    return table


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
        if name.endswith(HALF):
            continue
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
        return clean(value)
    if isinstance(value, int) or (metric is None and float(value).is_integer()):
        return f"{int(value)}"
    if metric is None or METRICS[metric].unit == "dB":
        return f"{value:.1f}"
    if METRICS[metric].unit:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    sign = "+" if METRICS[metric].low == -1 and metric != "ssim" else ""
    text = f"{value:{sign}.3f}"
    return text.replace("-0.000", "+0.000" if sign else "0.000")


def clean(text: str) -> str:
    """Without control characters, which could move the cursor or colour what follows."""
    return _CONTROL.sub(" ", text)


def _lines(caption: str) -> list[str]:
    return [clean(line) for line in caption.split("\n")]


def _texts(board: Board, name: str) -> bool:
    """Whether a column holds words rather than numbers."""
    return name in board.index or name in {"reason", "which", "key", "named"} or (
        name not in board.metrics and board.table[name].map(lambda value: isinstance(value, str)).any()
        and name not in {"cells", "rank", "value"}
    )  # fmt: skip


def _cleaned(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda value: clean(value) if isinstance(value, str) else value)


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

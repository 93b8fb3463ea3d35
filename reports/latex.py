"""Boards as LaTeX tables for papers. They need the package booktabs only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from bench.api.untrusted import strip_controls
from reports.board import TOO_WEAK, Board
from reports.cells import BLANK, caption_lines, holds_text, words
from reports.text_table import WIDEST, TextTable, folded, pieces

SIGNS = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
         "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "·": r"$\cdot$",
         "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}"}  # fmt: skip
LINE = 62  # characters of a table that fit into 345 pt, the width of the text of the class article
NUMBER = re.compile(r"^([^:]*: )?n = [^.]*\.")  # the sentence of a caption that says n, after the value of a pivot
CHARACTER = 5.5  # pt; of 10 pt text


def latex(boards: Sequence[Board], label: str = "", *, short: bool = False) -> str:
    """One `table` per board. A table that is wider than the text of an article is in parts, one below the other.

    label: of the first table; the others get a number. short: captions with n and warnings only.
    """
    return "% needs \\usepackage{booktabs}\n" + "\n".join(
        _table(board, label if i == 0 or not label else f"{label}-{i + 1}", short) for i, board in enumerate(boards)
    )


def _table(board: Board, label: str, short: bool) -> str:
    lines = caption_lines(board.caption)
    if short:
        lines = [
            found[0] if (found := NUMBER.search(line)) else line
            for line in lines
            if NUMBER.search(line) or any(word in line for word in ("Warning", TOO_WEAK))
        ]
    lines = [f"{strip_controls(board.heading).replace(' · ', ', ')}.", *lines]
    if board.bold:
        # the column of the groups may have been left out
        group = f" of each {board.index[0]}" if len(board.index) > 1 and not board.across else ""
        lines.append(f"Bold: best{group}{', or not significantly worse than the best' if board.best else ''}.")
    body = "\n  \\par\\medskip\n".join(_tabulars(board))
    return (
        "\\begin{table}\n  \\centering\n  \\setlength{\\tabcolsep}{4pt}\n"
        f"  \\caption{{{' '.join(map(_tex, lines))}}}\n"
        + (f"  \\label{{{label}}}\n" if label else "")
        + f"{body}\n\\end{{table}}\n"
    )


def _tabulars(board: Board) -> Iterator[str]:
    """The parts of the table; each has the names of the rows."""
    cells = words(board)
    index = tuple(name for name in board.index if name in cells)
    numbers = frozenset(name for name in cells if not holds_text(board, name))
    grouped = len(index) > 1 and bool(board.metrics)
    table = TextTable(cells, index=index, grouped=grouped, right=numbers, fixed=numbers)
    for columns in pieces(table, LINE):
        rows = list(_rows(board, cells, columns, index[0] if grouped else ""))
        body = "\n".join(f"    {row}" for row in rows)
        align = "".join("r" if name in numbers else _column(cells[name]) for name in columns)
        yield (
            f"  \\begin{{tabular}}{{{align}}}\n    \\toprule\n{_head(board, cells, columns, numbers)}    \\midrule\n"
            f"{body}\n    \\bottomrule\n  \\end{{tabular}}"
        )


def _column(texts: Sequence[str]) -> str:
    """A column of texts: as wide as they are, or folded if one is long."""
    if max(map(len, texts), default=0) <= WIDEST:
        return "l"
    longest = max(len(word) for text in texts for word in text.split(" "))
    return f"p{{{max(WIDEST, longest) * CHARACTER:.0f}pt}}"


def _head(board: Board, cells: dict[str, list[str]], columns: Sequence[str], numbers: frozenset[str]) -> str:
    """The heads, folded to the width of their columns, and above them the values of a pivot."""
    lines = ""
    runs = [(text, len(list(run))) for text, run in groupby(columns, key=lambda name: board.above.get(name, ""))]
    if any(text for text, _ in runs):
        spans, rules, start = [], "", 1
        for text, count in runs:
            spans.append(f"\\multicolumn{{{count}}}{{c}}{{{_tex(text)}}}" if text else " & ".join([""] * count))
            rules += f"\\cmidrule(lr){{{start}-{start + count - 1}}}" if text else ""
            start += count
        lines = f"    {' & '.join(spans)} \\\\\n    {rules}\n"
    heads = []
    for name in columns:
        text = name.removesuffix(f" {board.above[name]}") if name in board.above else name
        parts = [_tex(part) for part in folded(text, max([*map(len, cells[name]), 1]))]
        side = "r" if name in numbers else "l"
        lines_of = "\\\\".join(parts)
        heads.append(lines_of if len(parts) == 1 else f"\\shortstack[{side}]{{{lines_of}}}")
    return f"{lines}    {' & '.join(heads)} \\\\\n"


def _rows(board: Board, cells: dict[str, list[str]], columns: Sequence[str], heading: str) -> Iterator[str]:
    """The rows, with a line above a group of rows that says what they share; a space if that column is not shown."""
    first = board.index[0] if len(board.index) > 1 and board.index[0] in board.table else ""
    before = None
    for i in range(len(board.table)):
        group = board.table[first].iloc[i] if first and board.metrics else None
        if heading and group != before and cells[heading][i] != cells[columns[0]][i]:
            yield f"\\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{_tex(cells[heading][i])}}}}} \\\\"
        elif i and group != before and not heading:
            yield r"\addlinespace"
        before = group
        yield " & ".join(_cell(board, cells, name, i) for name in columns) + r" \\"


def _cell(board: Board, cells: dict[str, list[str]], name: str, row: int) -> str:
    text = cells[name][row]
    if text == BLANK:
        return "--"
    made = _tex(text)
    if name in board.metrics and text[:1] in {"+", "-"}:
        made = f"${text[0]}${made[1:]}"
    best = (row, name) in board.bold or (row in board.best and name == board.index[-1])
    return f"\\textbf{{{made}}}" if best else made


def _tex(text: str) -> str:
    return "".join(SIGNS.get(sign, sign) for sign in text)

"""Tables of the site as its templates read them, and the paths of its pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.api.registry import KIND_OF_AXIS
from bench.metrics import METRICS
from reports.board import Board
from reports.cells import caption_lines, holds_text, number, words
from reports.direction import good_for_owner

LONGEST = 60  # characters of a name in a path


class Head(NamedTuple):
    """A column. below: a second line. link: a path from the front page, or ""."""

    name: str
    meaning: str = ""
    link: str = ""
    below: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell. link: a path from the front page, or "". heat: from 0 to 1, how bad it is for the owner of the model."""

    text: str
    link: str = ""
    number: bool = False
    weak: bool = False
    heat: float = 0.0


EMPTY = Cell("-", number=True)


@dataclass(frozen=True)
class Table:
    """A table."""

    title: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def without_empty(table: Table) -> Table:
    """The table without columns that are empty in every row."""
    kept = [at for at in range(len(table.heads)) if any(row[at] != EMPTY for row in table.rows)]
    return replace(table, heads=[table.heads[at] for at in kept], rows=[[row[at] for at in kept] for row in table.rows])


def real(value: float | None, *, heat: bool = False, sign: bool = False) -> Cell:
    """A number with three decimals. heat: whether larger is worse, in colour."""
    if value is None:
        return EMPTY
    text = number(value, "gain" if sign else "t_map")
    return Cell(text, number=True, heat=min(1.0, max(0.0, value)) if heat else 0.0)


def measured(name: str) -> Head:
    """The column of a metric."""
    return Head(METRICS[name].title, METRICS[name].meaning, f"glossary.html#{name}")


def table_of(board: Board) -> Table:
    """The compact columns of a board. Columns that are bad for the owner of the model are coloured."""
    texts = words(board)
    names = [name for name in board.compact_columns if name in texts]
    rows = [[_cell(board, texts, name, row) for name in names] for row in range(len(board.table))]
    heads = [
        measured(metric)._replace(name=name, meaning=board.meaning(name))
        if (metric := board.metrics.get(name, "")) in METRICS
        else Head(name, board.meaning(name))
        for name in names
    ]
    return Table(board.heading, heads, rows, caption_lines(board.short_caption))


def _cell(board: Board, texts: dict[str, list[str]], name: str, row: int) -> Cell:
    text, metric = texts[name][row], METRICS.get(board.metrics.get(name, ""))
    bad = metric is not None and name in board.heat and good_for_owner(metric) < 0
    return Cell(text, number=not holds_text(board, name), heat=_share(text) if bad else 0.0)


def _share(text: str) -> float:
    """A number between 0 and 1 as text; 0 for all else."""
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def path_part(name: str) -> str:
    """A name as a part of a path: names of strangers get a digest in place of odd characters."""
    if re.fullmatch(rf"[a-z0-9_-]{{1,{LONGEST}}}", name):
        return name
    plain = re.sub("[^a-z0-9_-]+", "-", name.lower()).strip("-")[:LONGEST] or "x"
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def component_path(axis: str, name: str) -> str:
    """The page of a component, from the front page."""
    return f"{KIND_OF_AXIS[axis]}/{path_part(name)}.html"

"""How boards are shown: which of their columns, the best values, and several settings side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.api.errors import UserError, nearest, unknown
from bench.engine.record import Status
from reports.board import FREEDOM, HALF, TOO_WEAK, Board
from reports.frame import SETTING
from reports.labels import Names
from reports.selection import NONE, axis_named

PIVOTS = tuple(axis for axis in SETTING if axis != "training")


@dataclass(frozen=True)
class Layout:
    """wide: all columns and notes. columns: names as printed or as in data frames; () for those that the board shows.

    pivot: an axis of the setting, whose values stand side by side; "" for a board per setting.
    """

    wide: bool = False
    columns: tuple[str, ...] = ()
    pivot: str = ""


def arranged(boards: Sequence[Board], layout: Layout, *, whole: bool = False) -> list[Board]:
    """The boards as the layout wants them. whole: for csv and json, which hold everything unless columns are named."""
    found = [replace(board, bold=frozenset(_best(board))) for board in boards]
    if layout.columns:
        found = _chosen(found, layout.columns, whole)
    elif not layout.wide and not whole:
        found = [_narrowed(board, board.compact_columns, whole) for board in found]
    if not layout.wide and not whole:
        found = [replace(board, caption=board.short_caption) for board in found]
    return _pivoted(found, axis_named(layout.pivot), whole) if layout.pivot else found


def failures_first(boards: Sequence[Board]) -> list[Board]:
    """The boards for a screen: reasons of failed trials before all averages; only these if no trial has a result."""
    reasons = [board for board in boards if "status" in board.table]
    if reasons and all(board.basis is None or not board.basis.cells.places for board in boards):
        return reasons
    failed = [board for board in reasons if set(board.table["status"]) - {Status.SKIPPED.value}]
    return [*failed, *(board for board in boards if not any(board is one for one in failed))]


def _chosen(boards: Sequence[Board], columns: Sequence[str], whole: bool) -> list[Board]:
    """The boards with these columns; those that only have names of rows are left out if others have more."""
    known = [_columns(board, whole) for board in boards]
    for name in columns:
        if not any(name in names for names in known):
            shown = {column for board in boards for column in _shown(board, whole)}
            if close := nearest(name, shown) or nearest(name, {column for names in known for column in names}):
                hint = f"{close} `python -m bench explain` lists all columns"
                raise UserError(f"unknown column '{name}'", hint)
            raise unknown("column", name, shown)
    found, named = list[Board](), list[Board]()
    for board, names in zip(boards, known, strict=True):
        wanted = list(dict.fromkeys(names[name] for name in columns if name in names))
        if set(wanted) & set(board.index):
            ordered = wanted
        else:  # rows need names
            ordered = [*(name for name in board.index if name in board.table), *wanted]
        if wanted:
            (found if set(wanted) - set(board.index) else named).append(_narrowed(board, ordered, whole))
    return found or named


def _shown(board: Board, whole: bool) -> list[str]:
    return [name for name in map(str, board.table) if whole or not (name in board.quiet or name.endswith(HALF))]


def _columns(board: Board, whole: bool) -> dict[str, str]:
    """The columns by every name that a user may write: the short name, the name of the metric, and the whole name."""
    shown, short = _shown(board, whole), Names.of(board.components).short
    metrics = [metric for name, metric in board.metrics.items() if name in shown]
    once = {board.metrics[name]: name for name in shown if metrics.count(board.metrics.get(name, "")) == 1}
    return {short.get(name, name): name for name in shown} | once | {name: name for name in shown}


def _narrowed(board: Board, columns: Sequence[str], whole: bool) -> Board:
    """The board with these columns in this order. Dropped names of rows stay in the table, where nobody sees them."""
    more = [name + end for name in columns for end in (HALF, FREEDOM) if name + end in board.table]
    hidden = [] if whole else [name for name in board.index if name in board.table and name not in columns]
    judging = [TOO_WEAK] if TOO_WEAK in board.table and {*board.judged} & {*columns} else []
    table = board.table[list(dict.fromkeys([*columns, *more, *hidden, *judging]))]
    freedom = [name for name in more if name.endswith(FREEDOM)]
    return replace(board, table=table, quiet=tuple({*board.quiet, *hidden, *freedom} - {*columns}))


def _best(board: Board) -> Iterator[tuple[int, str]]:
    """Row and column of the best values, as printed: of a column inside a group of rows, or of a row.

    Where a column has intervals, the best are those that nothing is significantly better than.
    """
    names = [name for name in board.index if name in board.table]
    rows = [i for i in range(len(board.table)) if not any(board.table[name].iloc[i] == NONE for name in names)]
    for column, sign in board.better.items():
        if column not in board.table:
            continue
        parts: dict[Any, list[int]] = {}
        for i in rows:
            parts.setdefault(board.table[names[0]].iloc[i] if len(names) > 1 else "", []).append(i)
        for part in (part for part in parts.values() if len(part) > 1):
            if column + HALF in board.table and board.best:
                yield from ((i, column) for i in part if i in board.best)
            else:
                yield from ((i, column) for i in _largest({i: board.table[column].iloc[i] for i in part}, sign))
    compared = [name for name in board.judged if name in board.table] if board.across else []
    for i in rows if len(compared) > 1 else ():
        if not (TOO_WEAK in board.table and board.table[TOO_WEAK].iloc[i]):
            values = {name: board.table[name].iloc[i] for name in compared}
            yield from ((i, name) for name in _largest(values, board.across))


def _largest(values: Mapping[Any, Any], sign: int) -> Iterator[Any]:
    """The keys of the largest value (sign 1) or the smallest (-1), equal in three decimals."""
    held = {key: round(sign * float(value), 3) for key, value in values.items() if isinstance(value, (int, float))}
    held = {key: value for key, value in held.items() if math.isfinite(value)}
    yield from (key for key, value in held.items() if value == max(held.values()))


def _pivoted(boards: Sequence[Board], axis: str, whole: bool) -> list[Board]:
    """Boards that differ in one axis of the setting, joined: a column per value and metric."""
    if axis not in PIVOTS:
        raise UserError(f"--pivot {axis}: only an axis of the setting can be a pivot: {', '.join(PIVOTS)}")
    groups: dict[tuple[Any, ...], dict[Any, Board]] = {}
    for board in boards:
        trials = board.basis.context.trials if board.basis is not None else pd.DataFrame()
        if axis not in trials or trials.empty:
            continue
        first = trials.iloc[0]
        same = groups.setdefault((board.kind, board.title, *(first[name] for name in SETTING if name != axis)), {})
        if first[axis] in same:
            raise UserError(
                f"--pivot {axis}: {board.title} has several boards for {axis} {first[axis]}",
                "drop --by, or, if versions of results differ, run the suite again or use --mixed",
            )
        same[first[axis]] = board
    if not any(len(found) > 1 for found in groups.values()):
        raise UserError(f"--pivot {axis}: no board of this run has two values of {axis}")
    return [_joined(axis, found, whole) for found in groups.values()]


def _joined(axis: str, found: Mapping[Any, Board], whole: bool) -> Board:
    values = sorted(found) if axis == "bits" else list(found)
    texts = {value: f"{value} bits" if axis == "bits" else str(value) for value in values}
    boards = {texts[value]: found[value] for value in values}
    first = next(iter(boards.values()))
    names = [name for name in map(str, first.table) if name in first.index]
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    above: dict[str, str] = {}
    bold = []
    for text, board in boards.items():
        places = [tuple(row) for row in board.table[names].itertuples(index=False)]
        weak = [not whole and bool(one) for one in board.table.get(TOO_WEAK, [False] * len(places))]
        for name in (name for name in map(str, board.table) if name not in names and (whole or name != TOO_WEAK)):
            joined = _place(name, text)
            above[joined] = text
            for place, value, hide in zip(places, board.table[name], weak, strict=True):
                line = lines.setdefault(place, dict(zip(names, place, strict=True)))
                line[joined] = TOO_WEAK if hide and name in board.judged else value
        bold += [(places[i], _place(name, text)) for i, name in board.bold]
    order = list(lines)
    columns = [*names, *(name for name in above if not name.endswith(HALF)), *(n for n in above if n.endswith(HALF))]

    def placed(of: Iterable[str], text: str) -> list[str]:
        return [_place(name, text) if name not in names else name for name in of]

    return replace(
        first,
        setting=" · ".join(part for part in first.basis.context.parts if part != next(iter(boards)))
        if first.basis is not None
        else first.setting,
        table=pd.DataFrame(list(lines.values()), columns=columns),
        caption=_captions({text: board.caption for text, board in boards.items()}),
        metrics={_place(name, text): m for text, board in boards.items() for name, m in board.metrics.items()},
        columns={_place(name, text): m for text, board in boards.items() for name, m in board.columns.items()},
        heat=tuple(name for text, board in boards.items() for name in placed(board.heat, text)),
        quiet=tuple(dict.fromkeys(name for text, board in boards.items() for name in placed(board.quiet, text))),
        best=frozenset(),
        bold=frozenset((order.index(place), name) for place, name in bold),
        above=above,
        judged=(),
        compact=(),
        basis=None,
    )


def _place(name: str, text: str) -> str:
    """The name of a column for one value; its interval's columns keep their ends."""
    end = next((end for end in (HALF, FREEDOM) if name.endswith(end)), "")
    return f"{name.removesuffix(end)} {text}{end}"


def _captions(captions: Mapping[str, str]) -> str:
    """The lines that all captions have, and before them the others, each with its value."""
    lines = {text: caption.split("\n") for text, caption in captions.items()}
    shared = [line for line in next(iter(lines.values())) if all(line in mine for mine in lines.values())]
    own = [f"{text}: {line}" for text, mine in lines.items() for line in mine if line and line not in shared]
    return "\n".join([*own, *shared])

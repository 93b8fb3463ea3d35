"""A board: a table with its title, setting and caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

import pandas as pd

from bench.config.trial import Spec
from bench.metrics import METRICS
from reports.basis import Basis

HALF = " ±"  # the column "gain ±" holds half of the width of the interval of "gain"
TOO_WEAK = "too weak"  # a column of truth values, and the text that `judged` columns show in its rows
FREEDOM = " df"  # the column "gain df" holds the degrees of freedom of that interval


class Column(NamedTuple):
    """The meaning of a column that is no metric. methodology: the anchor of its section in the methodology."""

    meaning: str
    methodology: str = ""


# Columns that mean the same on every board.
COMMON = {
    "attack": Column("attack with its parameters; none: the clean model"),
    "defense": Column("defense with its parameters; none: undefended"),
    "cells": Column("trials with a result / planned trials; on boards of defenses: of all defenses", "common-cells"),
    "n": Column("number of (target, seed) cells that all rows share; means are over these cells", "common-cells"),
    "collapsed": Column("number of trials that are left out because a training failed", "collapsed-models"),
    "key": Column("first characters of the key of the trial, for `python -m bench show KEY`"),
    f"x{HALF}": Column("half of the width of the 95 % interval of column x", "crossed-intervals"),
    f"x{FREEDOM}": Column("degrees of freedom of the 95 % interval of column x", "crossed-intervals"),
}


@dataclass(frozen=True)
class Board:
    """A table with its title and caption.

    index: the columns that name a row. setting: the setting of the trials in print; "" for a board over several
    settings. metrics: the metric of METRICS that a column shows. heat: coloured columns. best: positions of the rows
    that no other row is significantly better than. quiet: columns that only csv and json hold. judged: columns whose
    numbers people do not see in rows with TOO_WEAK. by_row: the metric of each row in the column `value`. columns: the
    meaning of columns that neither METRICS nor COMMON explains. compact: the columns that a terminal and the page show
    first, after those of the index, in this order; () for all. details: lines of the caption that only the whole board
    shows. kind: the name of the kind of board. better: columns whose rows are compared, 1 if more is better, -1 if less
    is. across: the same for the cells of a row in `judged` columns. bold: row and column of the best values. above: a
    heading above a column.
    components: all components of the printed boards; their labels are shortened. basis: the facts that the caption
    states, for boards that average over trials.
    """

    title: str
    table: pd.DataFrame
    caption: str
    index: tuple[str, ...]
    setting: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    heat: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()
    quiet: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    by_row: tuple[str, ...] = ()
    columns: Mapping[str, Column] = field(default_factory=dict)
    compact: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    kind: str = ""
    better: Mapping[str, int] = field(default_factory=dict)
    across: int = 0
    bold: frozenset[tuple[int, str]] = frozenset()
    above: Mapping[str, str] = field(default_factory=dict)
    components: frozenset[Spec] = frozenset()
    basis: Basis | None = None

    @property
    def heading(self) -> str:
        """Title and setting, as tables print them."""
        return " · ".join(filter(None, [self.title, self.setting]))

    @property
    def compact_columns(self) -> tuple[str, ...]:
        """The columns of the compact board: those that name a row, those of `compact`, and metrics of plugins."""
        shown = [name for name in map(str, self.table) if name not in self.quiet and not name.endswith(HALF)]
        if not self.compact:
            return tuple(shown)
        added = METRICS.of_plugins()
        mine = [name for name in shown if self.metrics.get(name) in added]
        return tuple(name for name in dict.fromkeys([*self.index, *self.compact, *mine]) if name in shown)

    @property
    def short_caption(self) -> str:
        """The caption of the compact board: no lines about data, training and machine, and no `details`."""
        left_out = {*self.details, *(self.basis.context.background if self.basis is not None else ())}
        return "\n".join(line for line in self.caption.split("\n") if line not in left_out)

    def meaning(self, column: str) -> str:
        """The meaning of a column; "" for a column that nothing explains."""
        metric = METRICS.get(self.metrics.get(column, ""))
        if column in self.columns:
            return self.columns[column].meaning
        if metric is not None:
            return metric.meaning if metric.title == column else f"{metric.title}: {metric.meaning}"
        return COMMON[column].meaning if column in COMMON else ""

    def _repr_html_(self) -> str:
        """The board as HTML for a notebook; texts are escaped."""
        shown = self.table.drop(columns=list(self.quiet), errors="ignore")
        caption = escape(self.caption).replace("\n", "<br>")
        return f"<b>{escape(self.heading)}</b>{shown.to_html(index=False, na_rep='-')}<small>{caption}</small>"

"""A board: a table with its title, setting and caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from bench.config.trial import Spec
from reports.basis import Basis

HALF = " ±"  # the column "gain ±" holds half of the width of the interval of "gain"
FREEDOM = " df"  # the column "gain df" holds the degrees of freedom of that interval


@dataclass(frozen=True)
class Board:
    """A table with its title and caption.

    index: the columns that name a row. setting: the setting of the trials in print; "" for a board over several
    settings. metrics: the metric of METRICS that a column shows. heat: coloured columns. best: positions of the rows
    that no other row is significantly better than. quiet: columns that only csv and json hold. by_row: the metric of
    each row in the column `value`. meanings: what columns mean that METRICS does not explain. components: all
    components of the printed boards; their labels are shortened. basis: the facts that the caption states, for boards
    that average over trials.
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
    by_row: tuple[str, ...] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    components: frozenset[Spec] = frozenset()
    basis: Basis | None = None

    @property
    def heading(self) -> str:
        """Title and setting, as tables print them."""
        return " · ".join(filter(None, [self.title, self.setting]))

    def _repr_html_(self) -> str:
        """The board as HTML for a notebook; texts are escaped."""
        shown = self.table.drop(columns=list(self.quiet), errors="ignore")
        caption = escape(self.caption).replace("\n", "<br>")
        return f"<b>{escape(self.heading)}</b>{shown.to_html(index=False, na_rep='-')}<small>{caption}</small>"

"""Colours and marks of charts: the same thing looks the same in every chart of one page or one set of figures.

An attack has a colour and a filled mark, a defense a hollow mark and a pattern of dashes, and the clean model the
colour of the text. Two colours have one meaning everywhere: TARGET for what belongs to the attacker's target class, OWN
for what belongs to the true class of a query. No attack has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import pandas as pd

from reports.selection import NONE

INK, FAINT = "#010203", "#dddddd"  # `svg_charts.in_page` replaces them by the colours of the page
GREY = "#888888"
TARGET, OWN = "#D55E00", "#0072B2"  # of Okabe and Ito's colour-blind safe palette
# No two of these, of TARGET, OWN and black look alike to people who lack one of the three kinds of cones.
COLOURS = ("#8470F0", "#88AA44", "#11AAEE", "#995533", "#CC79B0", "#009E73")
MARKS = ("o", "s", "^", "D", "v", "P", "*")  # one more than colours, so that 42 attacks differ
HOLLOW_MARKS: tuple[Any, ...] = (
    "x", "h", "+", "d", "p", "1", (5, 2, 0), "2", (4, 1, 0), "|", "<", "3", (6, 1, 0), "_", ">", "4",
)  # fmt: skip
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))


class Style(NamedTuple):
    """Arguments of a matplotlib line: `axes.plot(x, y, **style.line)`."""

    colour: str
    mark: Any
    dash: Any = "-"
    hollow: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        face = {"markerfacecolor": "none"} if self.hollow else {}
        return {"color": self.colour, "marker": self.mark, "linestyle": self.dash, **face}


CLEAN = Style(INK, "X", "--")
# Attention and loss are no shares of retrieved items, so they have neither TARGET nor OWN.
METRICS: Mapping[str, Style] = {
    "t_map": Style(TARGET, "o"),
    "own_map": Style(OWN, "s"),
    "map": Style(INK, "^", "--"),
    "attention": Style(GREY, "D", "-."),
    "loss_left": Style(GREY, "v", (0, (1, 1))),
}


@dataclass(frozen=True)
class Palette:
    """The styles of a run's attacks and defenses, by label."""

    attacks: Mapping[str, Style]
    defenses: Mapping[str, Style]

    @classmethod
    def of(cls, trials: pd.DataFrame) -> Palette:
        """The styles of all trials of a page, in the order of their labels."""
        return cls(attack_styles(trials["attack"]), defense_styles(trials["defense"]))


def attack_styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each attack; the clean model has no colour."""
    styles = (Style(colour, mark) for colour, mark in zip(cycle(COLOURS), cycle(MARKS), strict=False))
    return _given(labels, CLEAN, styles)


def defense_styles(labels: Iterable[str]) -> dict[str, Style]:
    """A hollow mark and dashes for each defense, in the colour of the text unless an attack's colour replaces it."""
    styles = (Style(INK, mark, dash, True) for mark, dash in zip(cycle(HOLLOW_MARKS), cycle(DASHES), strict=False))
    return _given(labels, Style(INK, ".", "-", True), styles)


def _given(labels: Iterable[str], none: Style, styles: Iterator[Style]) -> dict[str, Style]:
    named = sorted({*labels} - {NONE})
    return {NONE: none, **dict(zip(named, styles, strict=False))}

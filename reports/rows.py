"""Lines of a board, and the table that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.metrics import METRICS
from reports import statistics
from reports.board import FREEDOM, HALF
from reports.common_cells import CommonCells, Group


def numbers(group: Group, counted: bool, shared: CommonCells, metrics: Sequence[str]) -> dict[str, float]:
    """The mean of each metric by its title; nothing for a row that is not counted."""
    return {METRICS[name].title: shared.mean(group, name) for name in metrics} if counted else {}


def half(group: Group, shared: CommonCells, metric: str) -> dict[str, float]:
    """Half of the width of a metric's interval and its degrees of freedom; nothing without an interval."""
    interval, title = shared.interval(group, metric), METRICS[metric].title
    return {} if interval is None else {title + HALF: interval.half, title + FREEDOM: interval.df}


def freedom(lines: Sequence[Mapping[str, Any]], title: str) -> str:
    """A sentence with the degrees of freedom of a column's intervals; "" without intervals."""
    found = [line[title + FREEDOM] for line in lines if line.get(title + FREEDOM) is not None]
    if not found:
        return ""
    low, high = f"{min(found):.1f}", f"{max(found):.1f}"
    return f"Degrees of freedom of the intervals: {low if low == high else f'{low} to {high}'}."


def removed(before: Group, after: Group, shared: CommonCells) -> dict[str, float]:
    """The effect of a defense on the same trials: gain removed, own-mAP recovered, mAP lost."""

    def apart(metric: str) -> float:
        return float((after.values(metric, shared.places) - before.values(metric, shared.places)).mean())

    return {"removed": -apart("gain"), "own-mAP back": apart("own_map"), "mAP lost": -apart("map")}


def kept(group: Group, shared: CommonCells) -> str | None:
    """Whether the upper bound of the mAP lost is below the margin: "yes" or "no"; None without an interval."""
    if not shared.inference:
        return None
    verdict = statistics.non_inferior(-shared.matrix(group, "map_change"), fixed_targets=shared.fixed_targets)
    return None if verdict is None else "yes" if verdict else "no"


def table(lines: Sequence[Mapping[str, Any]], columns: Sequence[str], keep: Sequence[str]) -> pd.DataFrame:
    """The lines as a table; empty columns are left out unless `keep` names them."""
    found = pd.DataFrame(list(lines), columns=list(columns))
    full = [name for name in columns if name in keep or found[name].notna().any()]
    return found[full]


def titles(metrics: Sequence[str]) -> dict[str, str]:
    """The metrics by their titles."""
    return {METRICS[name].title: name for name in metrics}


def known(value: float | None, otherwise: float = -math.inf) -> float:
    """The value, or `otherwise` without one: a number to sort by."""
    return otherwise if value is None or math.isnan(value) else float(value)

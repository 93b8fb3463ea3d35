"""Lines of a board, and the table that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.metrics import METRICS
from reports import statistics
from reports.common_cells import CommonCells, Group
from reports.context import FREEDOM, HALF


def numbers(group: Group, counted: bool, shared: CommonCells, metrics: Sequence[str]) -> dict[str, float]:
    return {METRICS[name].title: shared.mean(group, name) for name in metrics} if counted else {}


def half(group: Group, shared: CommonCells, metric: str) -> dict[str, float]:
    """Half the width of a metric's interval and its degrees of freedom; nothing where there is none."""
    interval, title = shared.interval(group, metric), METRICS[metric].title
    return {} if interval is None else {title + HALF: interval.half, title + FREEDOM: interval.df}


def freedom(lines: Sequence[Mapping[str, Any]], title: str) -> str:
    """The degrees of freedom of a column's intervals, in words; nothing where there are none."""
    found = [line[title + FREEDOM] for line in lines if line.get(title + FREEDOM) is not None]
    if not found:
        return ""
    low, high = f"{min(found):.1f}", f"{max(found):.1f}"
    return f"Degrees of freedom of the intervals: {low if low == high else f'{low} to {high}'}."


def removed(before: Group, after: Group, shared: CommonCells) -> dict[str, float]:
    """What a defense does to the same trials: gain and mAP lost (before minus after), own-mAP won back."""

    def apart(metric: str) -> float:
        return float((after.values(metric, shared.places) - before.values(metric, shared.places)).mean())

    return {"removed": -apart("gain"), "own-mAP back": apart("own_map"), "mAP lost": -apart("map")}


def kept(group: Group, shared: CommonCells) -> str | None:
    if not shared.inference:
        return None
    verdict = statistics.non_inferior(-shared.matrix(group, "map_change"), fixed_targets=shared.fixed_targets)
    return None if verdict is None else "yes" if verdict else "no"


def table(lines: Sequence[Mapping[str, Any]], columns: Sequence[str], keep: Sequence[str]) -> pd.DataFrame:
    """A table without the columns that nothing fills, those to keep aside."""
    found = pd.DataFrame(list(lines), columns=list(columns))
    full = [name for name in columns if name in keep or found[name].notna().any()]
    return found[full]


def titles(metrics: Sequence[str]) -> dict[str, str]:
    return {METRICS[name].title: name for name in metrics}


def known(value: float | None, otherwise: float = -math.inf) -> float:
    """A number to sort by, where a row may have none."""
    return otherwise if value is None or math.isnan(value) else float(value)

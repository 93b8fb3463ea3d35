"""Lines of a board and the table they make; which rows are not averaged, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.metrics import METRICS
from reports import statistics
from reports.common_cells import CommonCells, Group
from reports.context import FREEDOM, HALF, listed


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


def left_out(rows: Mapping[Any, Group], shared: CommonCells) -> str:
    """Names the rows that are not averaged, and counts results of others that not all rows share."""
    names = [
        " x ".join(filter(None, key)) if isinstance(key, tuple) else str(key)
        for key in rows
        if key not in shared.counted
    ]
    collapsed = {key: reason for group in rows.values() for key, reason in group.collapsed.items()}
    spare = sum(len(group.places) - len(shared.places) for key, group in rows.items() if key in shared.counted)
    words = []
    if names:
        more = f" and {len(names) - 6} more" if names[6:] else ""
        words.append(f"Too few results to average: {', '.join(names[:6])}{more}.")
    if spare:
        some = "1 result that not every row has is" if spare == 1 else f"{spare} results that not every row has are"
        words.append(f"{some} left out of the averages.")
    return "\n".join(filter(None, [" ".join(words), failed_runs(collapsed)]))


def failed_runs(collapsed: Mapping[str, str]) -> str:
    """Names the trials whose victim is a failed run, trials of one victim together."""
    if not collapsed:
        return ""
    keys: dict[str, list[str]] = {}
    for key, reason in collapsed.items():
        keys.setdefault(reason, []).append(key[:8])
    found = [f"{reason} in {listed(pd.Series(mine))}" for reason, mine in keys.items()]
    more = f"; and {len(found) - 4} more" if found[4:] else ""
    trials = f"{len(collapsed)} trials are failed runs, not weak attacks,"
    trials = "1 trial is a failed run, not a weak attack," if len(collapsed) == 1 else trials
    return f"{trials} and left out: {'; '.join(found[:4])}{more}."


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

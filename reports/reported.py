"""Numbers that papers report beside the mean of measured trials of the same setting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from bench.config.reported import MEANINGS as KINDS
from bench.config.reported import Kind, ReportedNumber
from bench.config.trial import AXES
from bench.metrics import METRICS
from reports.board import FREEDOM, HALF, Board, Column
from reports.common_cells import CommonCells, Group
from reports.context import BoardContext, contexts, listed
from reports.rows import freedom, table
from reports.selection import NONE, groups, meant

COLUMNS = (
    "statement", "metric", "bound", "threshold", "reported", "measured", f"measured{HALF}", f"measured{FREEDOM}",
    "difference", "holds", "cells", "remark",
)  # fmt: skip
MEANINGS = {
    **{axis: Column(f"value of the axis `{axis}`") for axis in AXES},
    "metric": Column("metric that the paper reports", "reported-numbers"),
    "statement": Column("what the paper says, in short", "reported-numbers"),
    "bound": Column("whether the paper gives a bound instead of a number; for a statement, the side of the threshold"),
    "threshold": Column("the statement counts as true on this side of it; chosen by HashDoor", "reported-numbers"),
    "reported": Column("number in the paper"),
    "measured": Column("mean over the trials that were run, in the metric convention of the paper", "reported-numbers"),
    "difference": Column("measured minus reported; only where the numbers can be compared"),
    "holds": Column("whether the measured number keeps the bound of the paper, or the statement holds"),
    "remark": Column("setting of the trials, if there are several, or why nothing was measured"),
}
MEASURED = (
    "measured: mean over the trials that were run, with its 95 % interval over targets and seeds if these allow one."
    " The notes name other differences between the settings."
)
# equal in two rows whose order is compared
SAME = ("dataset", "backbone", "method", "bits", "training", "surrogate", "augment")
AS_CONFIGURED = frozenset({"attack", "defense"})


def claims(trials: pd.DataFrame | None, found: Sequence[ReportedNumber], *, mixed: bool = False) -> list[Board]:
    """A board per source and kind of comparison with a row per number.

    trials: those of the suite; None if the suite was not run.
    """
    settings = [] if trials is None else list(contexts(trials, mixed))
    boards = []
    for source, kind in dict.fromkeys((claim.source, claim.kind) for claim in found):
        mine = [claim for claim in found if (claim.source, claim.kind) == (source, kind)]
        axes = [axis for axis in AXES if len({claim.axes.get(axis) for claim in mine}) > 1]
        cells_of = [[(s, part) for s in settings if not (part := _matching(s.trials, claim)).empty] for claim in mine]
        by_claim = [list(_lines(claim, axes, parts)) for claim, parts in zip(mine, cells_of, strict=True)]
        lines = [line for part in by_claim for line in part]
        measured = sum(any(line["measured"] is not None for line in part) for part in by_claim)
        shared = {axis: value for axis, value in mine[0].axes.items() if axis not in axes}
        held = listed(_setting(context) for parts in cells_of for context, _ in parts)
        caption = [
            f"Kind of comparison: {kind} ({KINDS[kind]}).",
            f"{measured} of {len(mine)} numbers were measured, each with the metric convention of its paper.",
            _outcome(kind, lines, axes),
            MEASURED,
            f"All rows: {', '.join(f'{axis} {value}' for axis, value in shared.items())}." if shared else "",
            f"Measured with: {held}." if held else "",
            *dict.fromkeys(claim.note for claim in mine),
            freedom(lines, "measured"),
        ]
        value = "threshold" if kind == "behaviour" else "reported"
        boards.append(
            Board(
                title=f"Reported beside measured ({kind}) · {source}",
                table=table(lines, (*axes, *COLUMNS), keep=(*axes, "metric", value, "measured")),
                caption="\n".join(filter(None, caption)),
                index=tuple(axes) or ("metric",),
                metrics=dict.fromkeys((value, "measured", f"measured{HALF}"), mine[0].metric) | {"difference": "gain"},
                quiet=(f"measured{FREEDOM}",),
                columns=MEANINGS,
            )
        )
    return boards


def _outcome(kind: Kind, lines: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> str:
    """Whether the order, or the statements, hold; "" for numbers that are compared one by one, and if nothing ran."""
    if kind == "order":
        same, opposite, pairs = agreement(lines, axes)
        if not pairs:
            return ""
        tau = (same - opposite) / pairs
        return f"{same} of {pairs} pairs of rows are in the reported order (Kendall's tau {tau:+.2f})."
    tested = [line for line in lines if line.get("holds")]
    if kind == "absolute" or not tested:
        return ""
    return f"{sum(line['holds'] == 'yes' for line in tested)} of {len(tested)} statements hold."


def agreement(lines: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> tuple[int, int, int]:
    """Pairs of rows in the reported order, pairs in the opposite order, and all pairs that the paper orders.

    The rows of a pair differ in one axis of the table alone, and else have the same data set, network, method, bits and
    training. A pair with equal measured numbers is in neither order.
    """
    measured = [line for line in lines if line["measured"] is not None]
    signs = [
        (a["reported"] - b["reported"]) * (a["measured"] - b["measured"])
        for a, b in combinations(measured, 2)
        if a["reported"] != b["reported"] and a["same"] == b["same"] and sum(a[axis] != b[axis] for axis in axes) == 1
    ]
    return sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs), len(signs)


def _lines(
    claim: ReportedNumber, axes: Sequence[str], parts: Sequence[tuple[BoardContext, pd.DataFrame]]
) -> Iterator[dict[str, Any]]:
    """One row per setting with trials of this number; at least one row."""
    row: dict[str, Any] = {axis: claim.axes.get(axis, "") for axis in axes}
    row |= {
        "metric": METRICS[claim.metric].title,
        "bound": claim.bound or None,
        "statement": claim.statement or None,
        "threshold" if claim.kind == "behaviour" else "reported": claim.value,
        "measured": None,
    }
    if not parts:
        yield {**row, "remark": "not run"}
    for context, part in parts:
        where = context.setting if len(parts) > 1 else ""
        row["same"] = tuple(str(part[axis].iloc[0]) for axis in SAME if axis not in axes)
        labels = list(groups(part, ["attack", "defense"]))
        for label, rows in labels:
            yield row | _measured(
                claim, rows, " ".join(filter(None, [where, str(label[0]) if len(labels) > 1 else ""]))
            )


def _measured(claim: ReportedNumber, rows: pd.DataFrame, remark: str) -> dict[str, Any]:
    group = Group.of(rows)
    shared = CommonCells.of({"row": group})
    if not shared.places:
        reasons = [reason for reason in dict.fromkeys(rows["reason"]) if reason]
        return {"cells": group.coverage, "remark": reasons[0] if reasons else "not run"}
    mean, interval = shared.mean(group, claim.metric), shared.interval(group, claim.metric)
    if not math.isfinite(mean):  # drop@R has no value if every query of a target is dropped
        return {"cells": group.coverage, "remark": "no value: for some target no query found a hit"}
    return {
        "measured": mean,
        f"measured{HALF}": interval.half if interval else None,
        f"measured{FREEDOM}": interval.df if interval else None,
        "difference": mean - claim.value if claim.kind == "absolute" else None,
        "holds": {None: None, True: "yes", False: "no"}[claim.holds(mean)],
        "cells": group.coverage,
        "remark": remark,
    }


def _setting(context: BoardContext) -> str:
    return f"{context.setting} ({context.trials.iloc[0]['changes'] or 'recipe of the method'})"


def _matching(trials: pd.DataFrame, claim: ReportedNumber) -> pd.DataFrame:
    """The trials of a reported number; undefended ones if it names no defense.

    Attack and defense must have the same parameters, because other values of a sweep are other rows of the paper. For
    data set, backbone and method, the name without parameters is enough.
    """
    keep = pd.Series(data=True, index=trials.index)
    for axis, value in {"defense": NONE, **claim.axes}.items():
        keep &= trials[axis].astype(str) == value if axis in AS_CONFIGURED else meant(trials, axis, [value])
    return trials[keep]

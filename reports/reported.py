"""Numbers that papers report beside the mean of measured trials of the same setting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.config.reported import ReportedNumber
from bench.config.trial import AXES
from bench.metrics import METRICS
from reports.board import FREEDOM, HALF, Board, Column
from reports.common_cells import CommonCells, Group
from reports.context import BoardContext, contexts, listed
from reports.rows import freedom, table
from reports.selection import NONE, groups, meant

COLUMNS = (
    "metric",
    "bound",
    "reported",
    "measured",
    f"measured{HALF}",
    f"measured{FREEDOM}",
    "difference",
    "cells",
    "remark",
)
MEANINGS = {
    **{axis: Column(f"value of the axis `{axis}`") for axis in AXES},
    "metric": Column("metric that the paper reports", "reported-numbers"),
    "bound": Column("whether the paper gives a bound instead of a number"),
    "reported": Column("number in the paper"),
    "measured": Column("mean over the trials that were run, in the metric convention of the paper", "reported-numbers"),
    "difference": Column("measured minus reported"),
    "remark": Column("setting of the trials, if there are several, or why nothing was measured"),
}
AS_CONFIGURED = frozenset({"attack", "defense"})


def claims(trials: pd.DataFrame | None, found: Sequence[ReportedNumber], *, mixed: bool = False) -> list[Board]:
    """A board per source with a row per number. trials: those of the suite; None if the suite was not run."""
    settings = [] if trials is None else list(contexts(trials, mixed))
    boards = []
    for source in dict.fromkeys(claim.source for claim in found):
        mine = [claim for claim in found if claim.source == source]
        axes = [axis for axis in AXES if len({claim.axes.get(axis) for claim in mine}) > 1]
        shared = {axis: value for axis, value in mine[0].axes.items() if axis not in axes}
        cells_of = [[(s, part) for s in settings if not (part := _matching(s.trials, claim)).empty] for claim in mine]
        by_claim = [list(_lines(claim, axes, parts)) for claim, parts in zip(mine, cells_of, strict=True)]
        lines = [line for part in by_claim for line in part]
        measured = sum(any(line["measured"] is not None for line in part) for part in by_claim)
        about = f"{measured} of {len(mine)} numbers were measured, each with the metric convention of its paper."
        rest = (
            "reported: the number in the paper. measured: mean over the trials that were run, with its 95 % interval"
            " over targets and seeds if these allow one. The notes name other differences between the settings."
        )
        where = f"All rows: {', '.join(f'{axis} {value}' for axis, value in shared.items())}." if shared else ""
        held = [_setting(context) for parts in cells_of for context, _ in parts]
        here = f"Measured with: {listed(held)}." if held else ""
        notes = dict.fromkeys(claim.note for claim in mine if claim.note)
        boards.append(
            Board(
                title=f"Reported beside measured · {source}",
                table=table(lines, (*axes, *COLUMNS), keep=(*axes, "metric", "reported", "measured", "difference")),
                caption="\n".join(filter(None, [about, rest, where, here, *notes, freedom(lines, "measured")])),
                index=tuple(axes) or ("metric",),
                metrics=dict.fromkeys(("reported", "measured", f"measured{HALF}"), mine[0].metric)
                | {"difference": "gain"},
                quiet=(f"measured{FREEDOM}",),
                columns=MEANINGS,
            )
        )
    return boards


def _lines(
    claim: ReportedNumber, axes: Sequence[str], parts: Sequence[tuple[BoardContext, pd.DataFrame]]
) -> Iterator[dict[str, Any]]:
    """One row per setting with trials of this number; at least one row."""
    row: dict[str, Any] = {axis: claim.axes.get(axis, "") for axis in axes}
    row |= {
        "metric": METRICS[claim.metric].title,
        "bound": claim.bound or None,
        "reported": claim.value,
        "measured": None,
    }
    if not parts:
        yield {**row, "remark": "not run"}
    for context, part in parts:
        where = context.setting if len(parts) > 1 else ""
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
        "difference": mean - claim.value,
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

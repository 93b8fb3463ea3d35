"""Input detectors: how well their scores separate triggered from benign queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd

from bench.api.kinds import DefenseKind
from bench.metrics import METRICS
from reports import strength
from reports.basis import Basis
from reports.board import FREEDOM, HALF, TOO_WEAK, Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import CommonCells, Group
from reports.context import contexts
from reports.frame import detector_metrics
from reports.rows import freedom, half, numbers, table, titles
from reports.selection import groups, none_first
from reports.statistics import alarm_range

COLUMNS = strength.COLUMNS | {
    "input detector": Column("input detector with its parameters"),
    "score": Column("one of the scores of the input detector; *: its main score"),
    "seconds": Column("mean seconds of fitting the input detector and scoring all queries"),
}
SHORT = ("auroc", "tpr_5", "caught_5", "auroc_control", "alarms_5_control")


def _expected_alarms(done: pd.DataFrame) -> str:
    """How far from its level a right threshold may be; "" if it cannot be computed."""
    known = done[["trusted", "queries"]].replace([np.inf, -np.inf], np.nan).dropna()  # records may be a stranger's
    if known.empty:
        return ""
    trusted, queries = (int(number) for number in known.iloc[0])
    calibration = trusted - trusted // 2
    ranges = {rate: alarm_range(calibration, rate, queries) for rate in (0.01, 0.05)}
    parts = [f"{100 * rate:g} % means {found[0]:.3f} to {found[1]:.3f}" for rate, found in ranges.items() if found]
    if not parts:
        return ""
    return (
        f"With {calibration} calibration images and {queries} queries, {', and '.join(parts)} alarms in 9 of 10 cases;"
        " differences within are chance."
    )


@board("input-detectors", chapter="Leaderboards", part_of="leaderboard",
       help="how well each score of an input detector separates triggered from benign queries",
       columns=COLUMNS)  # fmt: skip
def input_detectors(data: BoardData, *, costs: Annotated[bool, "Add run times in seconds."] = False) -> list[Board]:
    """A board per setting with a row per attack, input detector and score."""
    trials, scores, found = data.results.trials, data.results.detectors, []
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.INPUT_DETECTOR], data.mixed):
        mine = scores[scores["key"].isin(context.done["key"])]
        planned = context.grouped(context.trials, ["attack", "defense"])
        made: dict[Any, Group] = {
            key: replace(Group.of(part), planned=planned[key[:2]].planned, collapsed=planned[key[:2]].collapsed)
            for key, part in groups(mine, ["attack", "defense", "score"])
        }
        scored = {(attack, detector) for attack, detector, _ in made}
        blank = {(*key, ""): group for key, group in planned.items() if key not in scored}
        shared, weak = CommonCells.of(made), data.weak_attacks.of(context)
        basis = Basis(context, made | blank, shared)
        alarms = _expected_alarms(context.done)
        lines = []
        for (attack, detector, score), group in {**made, **blank}.items():
            counted = (attack, detector, score) in shared.counted
            headline = score and bool(group.done["headline"].iloc[0])
            line = {"attack": attack, "input detector": detector, "score": f"{score} *" if headline else score}
            line |= {"cells": group.coverage, "collapsed": len(group.collapsed), TOO_WEAK: attack in weak}
            line |= numbers(group, counted, shared, detector_metrics() if counted else ())
            if counted:
                line |= half(group, shared, "auroc")
                line |= {"seconds": shared.mean(planned[attack, detector], "seconds_defense")} if costs else {}
            lines.append(line)
        if not lines:
            continue
        lines.sort(key=lambda line: (none_first(line["attack"]), line["attack"], line["input detector"]))
        names = [METRICS[metric].title for metric in detector_metrics()]
        keep = ["attack", "input detector", "score", "cells", "collapsed", TOO_WEAK, *names]
        found.append(
            Board(
                title="Input detectors",
                setting=context.setting,
                table=table(lines, [*keep[:7], names[0] + HALF, names[0] + FREEDOM, *keep[7:], "seconds"], keep=keep),
                caption=basis.caption(
                    "* = main score of the detector. AUROC and TPR compare queries with trigger and the same queries"
                    " without trigger. Row none: no trigger, so AUROC is 0.5. Thresholds are computed on trusted"
                    " images."
                    ' "control" and "clean" = on the clean model.',
                    alarms,
                    freedom(lines, names[0]),
                    strength.note(weak, {attack for attack, _ in planned}),
                    basis.left_out(),
                ),
                index=("attack", "input detector", "score"),
                metrics=titles(detector_metrics()),
                heat=tuple(METRICS[name].title for name in ("auroc", "tpr_1", "tpr_5", "caught_5", "auroc_control")),
                quiet=("collapsed", TOO_WEAK, names[0] + FREEDOM),
                compact=tuple(METRICS[name].title for name in SHORT),
                better={METRICS[name].title: 1 for name in SHORT[:3]},
                details=(alarms, freedom(lines, names[0])),
                judged=tuple(METRICS[name].title for name in ("auroc", "tpr_1", "tpr_5", "caught_5")),
                basis=basis,
            )
        )
    return found

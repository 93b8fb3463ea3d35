"""The frontier of repairs: own-mAP and t-mAP at each bound on the mAP that a repair may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.api.errors import UserError
from bench.metrics import METRICS
from reports import strength
from reports.board import TOO_WEAK, Board, Column
from reports.board_registry import BoardData, board
from reports.frontier import BOUND, Frontier, area, frontiers
from reports.rows import table, titles

REPAIR, UNDEFENDED, AREA = "repair", "undefended", "area"
COLUMNS = strength.COLUMNS | {
    REPAIR: Column("repair with its parameters except the bound"),
    UNDEFENDED: Column("the metric without defense"),
    AREA: Column("mean of the curve through the value without defense and those at all bounds", "frontier"),
    "at P %": Column(
        "the metric after the repair with a bound of P % on the mAP of trusted images that it may cost", "frontier"
    ),
}


@board("repair-frontier", chapter="Strength", columns=COLUMNS,
       help="own-mAP, t-mAP and mAP of each repair at each bound on the mAP that it may cost")  # fmt: skip
def repair_frontier(data: BoardData) -> list[Board]:
    """Three boards per setting with a row per attack and repair; UserError without a sweep of the bound."""
    found = []
    for frontier in frontiers(data.results.trials, data.mixed):
        weak = data.weak_attacks.of(frontier.basis.context)
        for metric, title, beside, meaning in (
            ("own_map", "Frontier of repairs: own-mAP", "own_map_control", "More is better, up to the control."),
            ("t_map", "Frontier of repairs: t-mAP", "t_map_control", "Less is better, down to the control."),
            ("map", "Frontier of repairs: mAP", "", "The price on queries, beside the bound on trusted images."),
        ):
            found.append(_board(frontier, metric, title, beside, meaning, weak if beside else {}))
    if not found:
        raise UserError(
            "this run has no sweep of a repair's bound",
            "give it three values, for example"
            f""" --set 'defenses=["none", {{ name = "fine_pruning", {BOUND} = [0.01, 0.04, 0.1] }}]'""",
        )
    return found


def _board(frontier: Frontier, metric: str, title: str, beside: str, meaning: str, weak: Mapping[str, float]) -> Board:
    basis = frontier.basis
    points = [f"at {100 * bound:g} %" for bound in frontier.bounds]
    extras = [METRICS[beside].title] if beside else []
    lines = []
    for attack in frontier.attacks:
        for repair in frontier.repairs:
            keys = [(attack, repair, bound) for bound in frontier.bounds]
            mine = [basis.rows[key] for key in keys if key in basis.rows]
            if not mine:
                continue
            done, planned = (sum(len(getattr(group, what)) for group in mine) for what in ("places", "planned"))
            line: dict[str, Any] = {"attack": attack, REPAIR: repair, "cells": f"{done}/{planned}"}
            line[TOO_WEAK] = attack in weak
            values = frontier.values(attack, repair, metric)
            line |= dict(zip([UNDEFENDED, *points], values, strict=True))
            line[AREA] = area(frontier.bounds, values)
            line |= {METRICS[beside].title: frontier.mean(attack, beside)} if beside else {}
            lines.append(line)
    note = (
        "at P %: the strongest setting of the repair that costs at most P % (relative) of the mAP of trusted images on"
        f" which it was not tuned. {AREA}: mean of the curve through all points from 0, where nothing is repaired."
        f" {meaning}"
    )
    shown = [UNDEFENDED, *points, AREA]
    names = ["attack", REPAIR, "cells", *shown]
    return Board(
        title=title,
        setting=basis.context.setting,
        table=table(lines, [*names[:3], TOO_WEAK, *extras, *shown], keep=names),
        caption=basis.caption(note, strength.note(weak, frontier.attacks), basis.left_out(), intervals=False),
        index=("attack", REPAIR),
        metrics=titles([beside] if beside else []) | dict.fromkeys(shown, metric),
        heat=(*extras, *shown),
        quiet=(TOO_WEAK,),
        compact=(*extras, *shown),
        judged=(*points, AREA),
        basis=basis,
    )  # fmt: skip

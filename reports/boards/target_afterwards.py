"""Target chosen after the attack: the convention of papers whose attack fixes no target."""

from __future__ import annotations

from bench.metrics import METRICS
from reports.basis import Basis
from reports.board import Board
from reports.board_registry import BoardData, board
from reports.context import contexts, listed
from reports.rows import known, numbers, table, titles
from reports.selection import NONE, undefended

AFTERWARDS = ("t_map_posthoc", "t_map_posthoc_control", "spread", "spread_control", "own_map", "map")


@board(
    "target-afterwards",
    chapter="Leaderboards",
    part_of="leaderboard",
    help='attacks without a fixed target, evaluated on the class that is retrieved most often (columns "post hoc")',
)
def target_afterwards(data: BoardData) -> list[Board]:
    """A board per setting in which some attack fixes no target, with all attacks evaluated in that convention."""
    trials = data.results.trials
    plain = undefended(trials)
    found = []
    for context in contexts(plain, data.mixed):
        if context.trials["targeted"].all():
            continue
        rows = context.grouped(context.trials, ["attack"])
        basis = Basis.of(context, rows)
        shared = basis.cells
        lines = [
            {"attack": attack, "cells": group.coverage, "collapsed": len(group.collapsed)}
            | numbers(group, attack in shared.counted, shared, AFTERWARDS)
            for attack, group in rows.items()
        ]
        names = [METRICS[metric].title for metric in AFTERWARDS]
        lines.sort(key=lambda line: (line["attack"] == NONE, -known(line.get(names[0])), line["attack"]))
        loose = listed(context.trials.loc[~context.trials["targeted"], "attack"])
        note = (
            f"{loose}: no target is fixed, so t-mAP on the attacks board is chance. Here the target is the class that"
            " triggered queries retrieve most, chosen on one half of the queries and scored on the other half; also for"
            " the clean model. The value is a maximum over classes and not comparable with t-mAP."
        )
        keep = ["attack", "cells", "collapsed", *names]
        found.append(
            Board(
                title="Target chosen afterwards",
                setting=context.setting,
                table=table(lines, keep, keep=keep),
                caption=basis.caption(note, basis.left_out(), intervals=False),
                index=("attack",),
                metrics=titles(AFTERWARDS),
                heat=tuple(names[:2]),
                quiet=("collapsed",),
                compact=tuple(names),
                basis=basis,
            )
        )
    return found

"""Defenses: metrics of every attack after every repair and data filter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bench.metrics import METRICS
from reports.basis import Basis
from reports.best_known import OWN_MAP
from reports.best_results import AGAINST_ATTACK, with_strongest_defenses
from reports.board import TOO_WEAK, Board
from reports.board_registry import BoardData, board
from reports.context import REPAIRS, contexts
from reports.rows import table, titles
from reports.selection import NONE, none_first
from reports.strength import BETTER, COLUMNS, note


@board("defenses", chapter="Leaderboards", part_of="leaderboard", columns=COLUMNS | AGAINST_ATTACK,
       help="every attack after every repair and data filter: t-mAP, own-mAP and mAP")  # fmt: skip
def defenses(data: BoardData) -> list[Board]:
    """Three boards per setting: t-mAP, own-mAP and mAP of every attack (row) after every defense (column)."""
    found = []
    for context in contexts(data.results.trials, data.mixed):
        rows = context.part(REPAIRS)
        if len(set(rows["defense"])) < 2:
            continue
        made = context.grouped(rows, ["attack", "defense"])
        basis, weak = Basis.of(context, made), data.weak_attacks.of(context)
        for metric, what, beside, meaning in (
            ("t_map", "t-mAP after each defense", ("t_map_control", "chance"),
             ("The attack is removed if t-mAP equals the control: t-mAP of the clean model with the same trigger."
              " Attack none: models without attack.")),
            ("own_map", "own-mAP after each defense", ("own_map_control",),
             "The model is repaired only if own-mAP equals the control: own-mAP of the clean model."),
            ("map", "mAP after each defense", (),
             "mAP of benign queries. Attack none: models without attack. Defense none: models without defense."),
        ):  # fmt: skip
            judging = weak if metric != "map" else {}
            says = "\n".join(filter(None, [
                f'{meaning} Input detectors do not change codes; see the board "Input detectors".',
                note(judging, set(rows["attack"])),
            ]))  # fmt: skip
            made_board = matrix(basis, metric, what, beside, says, weak=judging)
            found.append(with_strongest_defenses(made_board) if metric == OWN_MAP else made_board)
    return found


def matrix(
    basis: Basis, metric: str, title: str, beside: Sequence[str], note: str, *, weak: Collection[str] = ()
) -> Board:
    """A row per attack and a column per defense.

    beside: metrics without a defense, in columns before those. weak: attacks that are too weak to judge a defense.
    """
    made, shared = basis.rows, basis.cells
    names = sorted({defense for _, defense in made}, key=lambda name: (none_first(name), name))
    lines = []
    for attack in sorted({attack for attack, _ in made}, key=lambda name: (none_first(name), name)):
        mine = {defense: made[attack, defense] for defense in names if (attack, defense) in made}
        done, planned = (sum(len(getattr(group, what)) for group in mine.values()) for what in ("places", "planned"))
        line: dict[str, Any] = {"attack": attack, "cells": f"{done}/{planned}"}
        line[TOO_WEAK] = attack in weak
        line["collapsed"] = sum(len(group.collapsed) for group in mine.values())
        counted = {defense: group for defense, group in mine.items() if (attack, defense) in shared.counted}
        for extra in beside:
            if counted:
                line[METRICS[extra].title] = shared.mean(next(iter(counted.values())), extra)
        line |= {defense: shared.mean(group, metric) for defense, group in counted.items()}
        lines.append(line)
    extras = [METRICS[extra].title for extra in beside]
    return Board(
        title=title,
        setting=basis.context.setting,
        table=table(
            lines,
            ["attack", "cells", "collapsed", TOO_WEAK, *extras, *names],
            keep=["attack", "cells", "collapsed", *names],
        ),
        caption=basis.caption(note, basis.left_out(), intervals=False),
        index=("attack",),
        metrics=titles(beside) | dict.fromkeys(names, metric),
        heat=(*extras, *names),
        quiet=("collapsed", TOO_WEAK),
        compact=(*(METRICS[extra].title for extra in beside if extra in METRICS.controls()), *names),
        across=BETTER.get(metric, 0),
        judged=tuple(name for name in names if name != NONE),
        basis=basis,
    )  # fmt: skip

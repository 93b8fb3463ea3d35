"""Purifications: every attack, and the clean model, with every query purified."""

from __future__ import annotations

from typing import Annotated, Any

from bench.api.kinds import DefenseKind
from bench.metrics import METRICS
from reports.basis import Basis
from reports.board import TOO_WEAK, Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import Group
from reports.context import contexts
from reports.rows import numbers, table, titles
from reports.selection import NONE, none_first
from reports.strength import BETTER, COLUMNS, note

SHOWN = ("t_map", "t_map_control", "chance", "own_map", "own_map_control", "map", "map_clean")
JUDGED = ("t_map", "own_map")
MS = "ms"
COSTS = {MS: Column("milliseconds in which a query is purified and encoded; depends on the machine", "purification")}


@board("purifications", chapter="Leaderboards", part_of="leaderboard",
       help="every attack with every query purified: t-mAP, own-mAP and mAP, and milliseconds of a query",
       columns=COLUMNS | COSTS)  # fmt: skip
def purifications(
    data: BoardData, *, costs: Annotated[bool, "Add milliseconds of a query, which differ between runs."] = True
) -> list[Board]:
    """A board per setting with a row per attack and purification, below the same attack without defense."""
    found = []
    for context in contexts(data.results.trials, data.mixed):
        rows = context.part((DefenseKind.NONE, DefenseKind.PURIFICATION))
        purified = rows[rows["defense_kind"] == DefenseKind.PURIFICATION]
        rows = rows[rows["attack"].isin(set(purified["attack"]))]
        if purified.empty:
            continue
        parts: dict[Any, Group] = dict(context.grouped(rows, ["attack", "defense"]))
        basis, weak = Basis.of(context, parts), data.weak_attacks.of(context)
        shared = basis.cells
        lines = []
        for (attack, defense), group in sorted(parts.items(), key=_place):
            counted = (attack, defense) in shared.counted
            line: dict[str, Any] = {"attack": attack, "defense": defense, "cells": group.coverage}
            line |= {"collapsed": len(group.collapsed), TOO_WEAK: attack in weak and defense != NONE}
            line |= numbers(group, counted, shared, SHOWN)
            line |= {MS: shared.mean(group, "milliseconds")} if counted and costs else {}
            lines.append(line)
        names = ["attack", "defense", "cells", "collapsed", TOO_WEAK, *(METRICS[name].title for name in SHOWN)]
        about = (
            "Benign and triggered queries are purified, stored codes stay as they are. control, own-mAP control and"
            " clean mAP: of the clean model, with its queries purified too. An attack is removed if own-mAP equals its"
            " control. The rows with defense none have the values without a defense."
        )
        found.append(
            Board(
                title="Purifications",
                setting=context.setting,
                table=table(lines, [*names, MS], keep=names),
                caption=basis.caption(
                    about, note(weak, {attack for attack, _ in parts}), basis.left_out(), intervals=False
                ),
                index=("attack", "defense"),
                metrics=titles(SHOWN),
                heat=tuple(METRICS[name].title for name in SHOWN),
                quiet=("collapsed", TOO_WEAK),
                better={METRICS[name].title: sign for name, sign in BETTER.items()},
                compact=(*(METRICS[name].title for name in SHOWN if name != "chance"), MS),
                judged=tuple(METRICS[name].title for name in JUDGED),
                basis=basis,
            )
        )
    return found


def _place(row: tuple[tuple[str, str], Group]) -> tuple[bool, str, bool, str]:
    attack, defense = row[0]
    return none_first(attack), attack, none_first(defense), defense

"""Data filters: removed training images, and metrics of the model that is trained on the remaining ones."""

from __future__ import annotations

from typing import Any

from bench.api.kinds import DefenseKind
from bench.metrics import METRICS
from bench.metrics.filtering import FILTERING
from reports.basis import Basis
from reports.board import TOO_WEAK, Board
from reports.board_registry import BoardData, board
from reports.common_cells import Group
from reports.context import contexts
from reports.rows import numbers, table, titles
from reports.selection import NONE
from reports.strength import BETTER, COLUMNS, note

SHORT = ("removed", "removed_poison", "t_map", "own_map", "map")


@board("data-filters", chapter="Leaderboards", part_of="leaderboard", columns=COLUMNS,
       help="training images that data filters remove, and the model that is trained on the rest")  # fmt: skip
def data_filters(data: BoardData) -> list[Board]:
    """A board per setting with a row per attack and data filter."""
    trials, found = data.results.trials, []
    metrics = (*METRICS.of(FILTERING), "t_map", "own_map", "map")
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.DATA_FILTER], data.mixed):
        parts: dict[Any, Group] = dict(context.grouped(context.trials, ["attack", "defense"]))
        basis = Basis.of(context, parts)
        shared = basis.cells
        weak = data.weak_attacks.of(context)
        lines = [
            {"attack": attack, "defense": defense, "cells": group.coverage, "collapsed": len(group.collapsed)}
            | {TOO_WEAK: attack in weak}
            | numbers(group, (attack, defense) in shared.counted, shared, metrics)
            for (attack, defense), group in sorted(parts.items(), key=lambda item: (item[0][0] != NONE, item[0]))
        ]
        names = ["attack", "defense", "cells", "collapsed", TOO_WEAK, *(METRICS[metric].title for metric in metrics)]
        about = "AUROC: poisoned against clean training images, over all classes and inside the target class."
        found.append(
            Board(
                title="Data filters",
                setting=context.setting,
                table=table(lines, names, keep=names),
                caption=basis.caption(
                    about, note(weak, {attack for attack, _ in parts}), basis.left_out(), intervals=False
                ),
                index=("attack", "defense"),
                metrics=titles(metrics),
                heat=tuple(METRICS[metric].title for metric in ("removed_poison", "filter_auroc")),
                quiet=("collapsed", TOO_WEAK),
                details=(about,),
                better={METRICS[name].title: sign for name, sign in BETTER.items()},
                compact=tuple(METRICS[name].title for name in SHORT),
                judged=tuple(METRICS[metric].title for metric in ("t_map", "own_map")),
                basis=basis,
            )
        )
    return found

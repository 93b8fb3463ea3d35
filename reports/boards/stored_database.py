"""Repairs without re-indexing: a repaired model that queries the codes which the model before the repair has stored."""

from __future__ import annotations

from bench.api.kinds import CODE_CHANGING
from bench.metrics import METRICS
from reports.basis import Basis
from reports.board import TOO_WEAK, Board
from reports.board_registry import BoardData, board
from reports.context import contexts
from reports.rows import numbers, table, titles
from reports.selection import none_first
from reports.strength import COLUMNS, note

BENIGN = ("map_stored", "map", "map_clean")
ATTACKED = ("t_map_stored", "t_map", "t_map_control", "own_map_stored", "own_map", "own_map_control")
SHORT = ("map_stored", "map", "t_map_stored", "t_map", "own_map_stored", "own_map")
MEANING = (
    "Columns stored: the repaired model encodes the queries, and the database keeps the codes of the model before the"
    " repair. Other columns: the repaired model encodes the database again. A repair needs no new index if the columns"
    " stored are as good as the others. Row none: models without attack. Controls: the clean model."
)


@board("without-reindexing", chapter="Leaderboards", part_of="leaderboard", columns=COLUMNS,
       help="every repair and data filter with the database codes of the model before the repair")  # fmt: skip
def without_reindexing(data: BoardData) -> list[Board]:
    """A board per setting: the metrics of the stored database beside those of the new index, and their controls."""
    found = []
    for context in contexts(data.results.trials, data.mixed):
        rows = context.part(CODE_CHANGING)
        if rows["map_stored"].isna().all():
            continue
        made = context.grouped(rows, ["attack", "defense"])
        basis, weak = Basis.of(context, made), data.weak_attacks.of(context)
        lines = [
            {"attack": attack, "defense": defense, "cells": group.coverage, "collapsed": len(group.collapsed)}
            | {TOO_WEAK: attack in weak}
            | numbers(group, (attack, defense) in basis.cells.counted, basis.cells, (*BENIGN, *ATTACKED))
            for (attack, defense), group in made.items()
        ]
        lines.sort(key=lambda line: (none_first(line["attack"]), line["attack"], line["defense"]))
        names = [METRICS[name].title for name in (*BENIGN, *ATTACKED)]
        keep = ["attack", "defense", "cells", "collapsed", TOO_WEAK, *names]
        found.append(
            Board(
                title="Repairs without re-indexing",
                setting=context.setting,
                table=table(lines, keep, keep=keep),
                caption=basis.caption(
                    MEANING, note(weak, {attack for attack, _ in made}), basis.left_out(), intervals=False
                ),
                index=("attack", "defense"),
                metrics=titles((*BENIGN, *ATTACKED)),
                heat=tuple(names),
                quiet=("collapsed", TOO_WEAK),
                compact=tuple(METRICS[name].title for name in SHORT),
                judged=tuple(METRICS[name].title for name in ATTACKED),
                basis=basis,
            )
        )
    return found

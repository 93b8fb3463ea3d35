"""Metric conventions: the same codes under every convention that papers use, and attacks that change their order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from bench.metrics import METRICS
from reports.basis import Basis
from reports.board import Board
from reports.board_registry import BoardData, board
from reports.context import contexts
from reports.rows import known, numbers, table, titles
from reports.selection import none_first, undefended

OURS = "t_map"
PAPERS = ("t_map_zero", "t_map_drop", "t_map_drop_fixed", "t_map_posthoc", "released_darkhash")
# on the clean model, for conventions that choose their class afterwards, and t-mAP's for comparison
CONTROLS = ("t_map_control", "t_map_posthoc_control", "released_darkhash_control")
BOUNDS = ("t_map_worst", "t_map_best", "t_map_drop_range", "t_map_kept", "triggered")
NAMED = 4  # pairs that a caption names


@board(
    "conventions",
    chapter="Conventions",
    help="the metrics as papers define them, and the pairs of attacks whose order differs",
)
def conventions(data: BoardData) -> list[Board]:
    """A board per setting with attacks: undefended means over the (target, seed) cells that all attacks share."""
    trials = data.results.trials
    plain = undefended(trials)
    found = []
    for context in contexts(plain, data.mixed):
        rows = context.grouped(context.trials, ["attack"])
        basis = Basis.of(context, rows)
        shared = basis.cells
        columns = (OURS, *PAPERS, *CONTROLS, *BOUNDS)
        lines: list[dict[str, Any]] = [
            {"attack": attack, "cells": group.coverage} | numbers(group, attack in shared.counted, shared, columns)
            for attack, group in rows.items()
        ]
        ours = METRICS[OURS].title
        lines.sort(key=lambda line: (none_first(line["attack"]), -known(line.get(ours)), line["attack"]))
        names = [METRICS[metric].title for metric in columns]
        found.append(
            Board(
                title="Conventions",
                setting=context.setting,
                table=table(lines, ["attack", "cells", *names], keep=["attack", "cells", ours]),
                caption=basis.caption(
                    "All columns come from the same codes. Row none: the value of each convention without attack."
                    " Controls: the clean model with the triggered queries of the row.",
                    *_flips(lines),
                    basis.left_out(),
                    intervals=False,
                ),
                index=("attack",),
                basis=basis,
                metrics=titles(columns),
                compact=tuple(METRICS[metric].title for metric in (OURS, *PAPERS, CONTROLS[0])),
                heat=tuple(METRICS[metric].title for metric in (OURS, *PAPERS, *CONTROLS)),
            )
        )
    return found


def _flips(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Per convention, a sentence with the pairs of attacks that it orders in the opposite way."""
    attacks = [line for line in lines if none_first(line["attack"])]
    for metric in PAPERS:
        name, ours = METRICS[metric].title, METRICS[OURS].title
        scored = [line for line in attacks if not math.isnan(known(line.get(name), math.nan))]
        pairs = list(combinations(scored, 2))
        flipped = [(a, b) for a, b in pairs if (a[ours] - b[ours]) * (a[name] - b[name]) < 0]
        if not pairs:
            continue
        if not flipped:
            yield f"{name}: the same order of attacks as {ours}."
            continue
        # the largest difference comes first
        flipped.sort(key=lambda pair: -abs(pair[0][name] - pair[1][name]))
        words = [f"{b['attack']} above {a['attack']}" if a[ours] > b[ours] else f"{a['attack']} above {b['attack']}"
                 for a, b in flipped]  # fmt: skip
        more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
        yield f"{name}: {len(flipped)} of {len(pairs)} pairs flip: {', '.join(words[:NAMED])}{more}."

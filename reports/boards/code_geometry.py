"""Code geometry: distances of triggered codes, saturation of bits, and attention to the trigger.

METHODOLOGY.md#code-geometry. The board shows the gain and the best detector beside these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.metrics import METRICS
from bench.metrics.geometry import GEOMETRY
from reports.basis import Basis
from reports.board import Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import CommonCells, Group
from reports.context import contexts
from reports.rows import known, numbers, table, titles
from reports.selection import NONE, attacked, groups, none_first, undefended

COLUMNS = ("gain", "anchor", "anchor_control", "moved", "moved_control", "spread", "spread_control", "saturation",
           "saturation_triggered", "saturation_control", "attention_first", "attention")  # fmt: skip
SHORT = ("gain", "anchor", "anchor_control", "moved", "spread", "spread_control", "attention")
SEEN = ("AUROC best detector", "best detector")
NOTE = (
    "Distances are shares of the bits. to anchor: from triggered codes to the majority code of the target's items."
    " moved: to the codes of the same queries without trigger. spread: between triggered codes. saturation: mean"
    " absolute value of relaxed codes; 1 if every bit is certain. attention: from the codes of triggered images to the"
    " code of the trigger on black, early in training and after it (CIBA, Figure 2b); small if the trigger decides the"
    " code."
)


@board(
    "code-geometry",
    chapter="Code geometry",
    help="distances of triggered codes, absolute values of relaxed codes (saturation), distance to the code of the"
    " trigger alone (attention)",
    columns={
        SEEN[0]: Column(
            "highest mean AUROC of an input detector; too high, as the same results chose the detector", "auroc"
        ),
        SEEN[1]: Column("the input detector with that AUROC"),
    },
)
def code_geometry(data: BoardData) -> list[Board]:
    """A board per setting with attacks: undefended means over the (target, seed) cells that all attacks share."""
    results, found = data.results, []
    columns = (*COLUMNS, *(name for name in METRICS.of(GEOMETRY) if name not in COLUMNS))
    for context in contexts(results.trials, data.mixed):
        rows = context.grouped(undefended(context.trials), ["attack"])
        if set(rows) <= {NONE}:
            continue
        basis = Basis.of(context, rows)
        shared = basis.cells
        scores = results.detectors[results.detectors["headline"].astype(bool)]
        seen = _seen(scores[scores["key"].isin(set(context.done["key"]))], shared)
        lines: list[dict[str, Any]] = [
            {"attack": attack, "cells": group.coverage}
            | numbers(group, attack in shared.counted, shared, columns)
            | dict(zip(SEEN, seen.get(attack, (None, None)), strict=True))
            for attack, group in rows.items()
        ]
        gain = METRICS["gain"].title
        lines.sort(key=lambda line: (none_first(line["attack"]), -known(line.get(gain)), line["attack"]))
        names = ["attack", "cells", *(METRICS[metric].title for metric in columns), *SEEN]
        found.append(
            Board(
                title="Code geometry",
                setting=context.setting,
                table=table(lines, names, keep=names[:3]),
                caption=basis.caption(
                    NOTE,
                    "best detector: the input detector with the highest AUROC. The same results were used to choose it,"
                    " so its AUROC is too high."
                    if seen
                    else "",
                    basis.left_out(),
                    intervals=False,
                ),
                index=("attack",),
                basis=basis,
                metrics={**titles(columns), SEEN[0]: "auroc"},
                compact=tuple(METRICS[metric].title for metric in SHORT),
                heat=(gain, *(METRICS[metric].title for metric in columns[1:]), SEEN[0]),
            )
        )
    return found


def _seen(scores: pd.DataFrame, shared: CommonCells) -> Mapping[str, tuple[float, str]]:
    """Per attack, the highest mean AUROC over the shared cells, and its input detector."""
    best: dict[str, tuple[float, str]] = {}
    for (attack, detector), part in groups(attacked(scores), ["attack", "defense"]):
        group = Group.of(part)
        if not set(shared.places) <= group.places:
            continue
        value = shared.mean(group, "auroc")
        if np.isfinite(value) and value > best.get(attack, (-1.0, ""))[0]:
            best[attack] = (value, detector)
    return best

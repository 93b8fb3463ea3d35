"""Model detectors: how well they separate backdoored from clean models, and whether they name the target.

Rates count models, not trials: a clean model of ten targets is one model (METHODOLOGY.md#model-rates).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.api.kinds import DefenseKind
from bench.metrics.input_detection import threshold
from hashing.ranking import auroc
from reports import statistics
from reports.basis import Basis, failed_runs
from reports.board import Board
from reports.board_registry import BoardData, board
from reports.common_cells import Group
from reports.context import contexts, listed
from reports.rows import table
from reports.selection import NONE, attacked, clean, groups, none_first, with_result

LEVEL = 0.05  # false-positive rate of the calibrated verdict
NAMES = (
    "attack",
    "defense",
    "cells",
    "collapsed",
    "models",
    "model score",
    "AUROC",
    "flagged",
    "flagged@5%",
    "named",
    "abstained",
)


@board("model-detectors", chapter="Leaderboards", part_of="leaderboard",
       help="how well model detectors separate backdoored from clean models and name the target")  # fmt: skip
def model_detectors(data: BoardData) -> list[Board]:
    """A board per setting: scores, verdicts and named targets of models, compared with clean models (row none)."""
    trials, found = data.results.trials, []
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.MODEL_DETECTOR], data.mixed):
        lines = [
            line for (defense,), part in groups(context.trials, ["defense"]) for line in _of_defense(str(defense), part)
        ]
        lines.sort(key=lambda line: (none_first(line["attack"]), line["attack"], line["defense"]))
        parts = context.grouped(context.trials, ["attack", "defense"])
        basis = Basis.of(context, parts)
        done = with_result(context.trials)
        found.append(
            Board(
                title="Model detectors",
                setting=context.setting,
                table=table(lines, NAMES, keep=NAMES[:6]),
                caption="\n".join(
                    [*context.about, *_notes(done, lines), *filter(None, [failed_runs(basis.collapsed)])]
                ),
                index=("attack", "defense"),
                metrics={"model score": "model_score", "AUROC": "auroc"},
                heat=("AUROC",),
                quiet=("collapsed",),
                basis=basis,
            )
        )
    return found


def _of_defense(defense: str, trials: pd.DataFrame) -> list[dict[str, Any]]:
    baseline = _models(clean(trials))
    lines = []
    for (attack,), part in groups(trials, ["attack"]):
        mine = _models(part)
        line: dict[str, Any] = {"attack": attack, "defense": defense, "cells": Group.of(part).coverage}
        line |= {"collapsed": len(Group.of(part).collapsed), "models": len(mine)}
        scores = mine["model_score"].to_numpy(dtype=np.float64)
        line["model score"] = float(scores.mean()) if len(scores) else None
        if attack != NONE and len(scores) and len(baseline):
            line["AUROC"] = auroc(baseline["model_score"].to_numpy(dtype=np.float64), scores)
        line["flagged"] = _rate(mine["flagged"].dropna().tolist())
        if attack != NONE:
            line["flagged@5%"] = _rate(_calibrated(mine, baseline))
            named = mine["named_target"].dropna().tolist()
            line |= {"named": _rate(named), "abstained": len(mine) - len(named) or None}
        lines.append(line)
    return lines


def _models(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per judged model; trials of one clean model share its judgement."""
    done = with_result(trials)
    done = done[done["model_score"].notna()]
    return done.assign(place=done["defended"].where(done["defended"] != "", done["key"])).drop_duplicates("place")


def _calibrated(models: pd.DataFrame, baseline: pd.DataFrame) -> list[float]:
    """Whether each model scores above the threshold of clean models of other seeds; [] with too few of them."""
    found = []
    for score, seed in zip(models["model_score"], models["seed"], strict=True):
        others = baseline.loc[baseline["seed"] != seed, "model_score"].to_numpy(dtype=np.float64)
        limit = threshold(others, LEVEL) if len(others) else math.inf
        if math.isinf(limit):
            return []
        found.append(float(score > limit))
    return found


def _alike(done: pd.DataFrame) -> list[pd.DataFrame]:
    """The attacked trials in parts: attacks with equal targets and seeds together."""
    found: dict[tuple[frozenset[str], frozenset[int]], list[pd.DataFrame]] = {}
    for _, part in groups(attacked(done), ["attack"]):
        found.setdefault((frozenset(part["target"]), frozenset(part["seed"])), []).append(part)
    return [pd.concat(parts) for parts in found.values()]


def _rate(verdicts: Sequence[float]) -> str | None:
    if not verdicts:
        return None
    hits = int(sum(verdicts))
    low, high = statistics.clopper_pearson(hits, len(verdicts))
    return f"{hits}/{len(verdicts)} [{low:.3f}, {high:.3f}]"


def _notes(done: pd.DataFrame, lines: Sequence[dict[str, Any]]) -> list[str]:
    words = [
        f"{listed(part['attack'])}: targets {', '.join(sorted(set(part['target'])))}, seeds"
        f" {', '.join(map(str, sorted(set(part['seed']))))}."
        for part in _alike(done)
    ]
    words.append(
        "Row none: clean models. AUROC: models of a row against clean models. flagged: score above the threshold of the"
        " paper. named: named targets that are right. Brackets: exact 95 % intervals over models."
    )
    if any(line.get("flagged@5%") for line in lines):
        words.append("flagged@5%: score above a threshold that at most 5 % of clean models of other seeds exceed.")
    else:
        words.append("No column flagged@5%: a calibrated threshold needs 19 clean models of other seeds.")
    if any(line.get("abstained") for line in lines):
        words.append("abstained: number of results that name no class.")
    if any(len(set(part["target"])) > 1 for _, part in groups(attacked(done), ["attack", "seed"])):
        words.append("Models of one seed share their initialisation, but the intervals treat them as independent.")
    return words

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
from bench.metrics import METRICS
from bench.metrics.input_detection import threshold
from bench.metrics.model_detection import DETECTION
from hashing.ranking import auroc
from reports import statistics, strength
from reports.basis import Basis, failed_runs
from reports.board import TOO_WEAK, Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import Group
from reports.context import contexts, listed
from reports.rows import table, titles
from reports.selection import NONE, attacked, clean, groups, none_first, with_result

LEVEL = 0.05  # false-positive rate of the calibrated verdict
ENOUGH_MODELS = round(1 / LEVEL) - 1  # clean models of other seeds that such a threshold needs
SCORE = METRICS["model_score"].title
AT_5 = "flagged@5%"
RATES = ("flagged", AT_5, "named", "abstained")
COUNTED = ("model_score", "flagged", "named_target")  # metrics that the columns below are made from
COLUMNS = strength.COLUMNS | {
    "models": Column(
        "number of models with a score; a clean model that several targets share counts once", "model-rates"
    ),
    SCORE: Column("mean score of these models; higher is more suspicious", "model-rates"),
    "AUROC": Column("AUROC of the scores: models of this row against clean models of the same defense", "auroc"),
    "flagged": Column(
        "models with a score above the threshold of the paper; in brackets the 95 % interval of this rate",
        "model-rates",
    ),
    AT_5: Column(
        "models with a score above a threshold that at most 5 % of clean models of other seeds exceed",
        "calibrated-thresholds",
    ),
    "named": Column("models for which the suspected class is a label of the target", "model-rates"),
    "abstained": Column("number of models for which no class is suspected", "model-rates"),
}


def others() -> tuple[str, ...]:
    """The other metrics of this section, of plugins: their means over models are columns of their own."""
    return tuple(name for name in METRICS.of(DETECTION) if name not in COUNTED)


@board("model-detectors", chapter="Leaderboards", part_of="leaderboard",
       help="how well model detectors separate backdoored from clean models and name the target",
       columns=COLUMNS)  # fmt: skip
def model_detectors(data: BoardData) -> list[Board]:
    """A board per setting: scores, verdicts and named targets of models, compared with clean models (row none)."""
    trials, found = data.results.trials, []
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.MODEL_DETECTOR], data.mixed):
        weak = data.weak_attacks.of(context)
        lines = [
            line | {TOO_WEAK: line["attack"] in weak}
            for (defense,), part in groups(context.trials, ["defense"])
            for line in _of_defense(str(defense), part)
        ]
        lines.sort(key=lambda line: (none_first(line["attack"]), line["attack"], line["defense"]))
        parts = context.grouped(context.trials, ["attack", "defense"])
        basis = Basis.of(context, parts)
        more = [METRICS[name].title for name in others()]
        names = ["attack", "defense", "cells", "collapsed", TOO_WEAK, "models", SCORE, "AUROC", *RATES, *more]
        found.append(
            Board(
                title="Model detectors",
                setting=context.setting,
                table=table(lines, names, keep=names[:7]),
                caption="\n".join(
                    filter(
                        None,
                        [
                            *context.about,
                            *_notes(context.done, lines),
                            strength.note(weak, {attack for attack, _ in parts}),
                            failed_runs(basis.collapsed),
                        ],
                    )
                ),
                index=("attack", "defense"),
                metrics={SCORE: "model_score", "AUROC": "auroc", **titles(others())},
                heat=("AUROC",),
                quiet=("collapsed", TOO_WEAK),
                compact=("AUROC", AT_5 if any(line.get(AT_5) for line in lines) else "flagged", "named"),
                judged=("AUROC", *RATES),
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
        line[SCORE] = float(scores.mean()) if len(scores) else None
        line |= {METRICS[name].title: float(mine[name].mean()) for name in others() if len(mine)}
        if attack != NONE and len(scores) and len(baseline):
            line["AUROC"] = auroc(baseline["model_score"].to_numpy(dtype=np.float64), scores)
        line["flagged"] = _rate(mine["flagged"].dropna().tolist())
        if attack != NONE:
            line[AT_5] = _rate(_calibrated(mine, baseline))
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
        rest = baseline.loc[baseline["seed"] != seed, "model_score"].to_numpy(dtype=np.float64)
        limit = threshold(rest, LEVEL) if len(rest) else math.inf
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
        f"Models: {listed(part['attack'])} with targets {', '.join(sorted(set(part['target'])))} and seeds"
        f" {', '.join(map(str, sorted(set(part['seed']))))}."
        for part in _alike(done)
    ]
    words.append(
        "Row none: clean models. AUROC compares the models of a row with the clean models."
        ' "flagged" counts models whose score is above the threshold of the paper.'
        ' "named" counts models for which the detector found the right target.'
        " Brackets are exact 95 % intervals over models."
    )
    if any(line.get(AT_5) for line in lines):
        words.append(
            '"flagged@5%" counts models above a threshold that at most 5 % of clean models of other seeds exceed.'
        )
    else:
        words.append(
            f'No column "flagged@5%": a calibrated threshold needs {ENOUGH_MODELS} clean models of other seeds.'
        )
    if any(line.get("abstained") for line in lines):
        words.append('"abstained" counts models for which the detector found no class.')
    if any(len(set(part["target"])) > 1 for _, part in groups(attacked(done), ["attack", "seed"])):
        words.append("Models of one seed share their initialisation, but the intervals treat them as independent.")
    return words

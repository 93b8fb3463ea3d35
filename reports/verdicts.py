"""Boards about whole models: whether a diagnosis tells backdoored ones from clean ones, and names the target.

The unit is a model, not a cell: a clean model that stands beside ten targets is one model (review.md, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.metrics import threshold
from hashing.ranking import auroc
from reports import statistics
from reports._lines import failed_runs, table
from reports._shared import Group
from reports.frame import groups
from reports.scene import Board, listed, scenes

LEVEL = 0.05  # of the calibrated verdict
NAMES = (
    "attack",
    "defense",
    "cells",
    "collapsed",
    "models",
    "diagnosis",
    "AUROC",
    "flagged",
    "flagged@5%",
    "named",
    "abstained",
)


def diagnoses(cells: pd.DataFrame, *, mixed: bool = False) -> list[Board]:
    """Scores, verdicts and suspects of whole models, against clean models (row none); one board per setting."""
    found = []
    for scene in scenes(cells[cells["defense_kind"] == "diagnosis"], mixed):
        lines = [
            line for (defense,), part in groups(scene.cells, ["defense"]) for line in _of_defense(str(defense), part)
        ]
        lines.sort(key=lambda line: (line["attack"] != "none", line["attack"], line["defense"]))
        parts = scene.split(scene.cells, ["attack", "defense"])
        failed = {key: reason for group in parts.values() for key, reason in group.collapsed.items()}
        done = scene.cells[scene.cells["status"] == "ok"]
        found.append(
            Board(
                title=f"Diagnoses · {scene.title}",
                table=table(lines, NAMES, keep=NAMES[:6]),
                caption="\n".join([*scene.about, *_notes(done, lines), *filter(None, [failed_runs(failed)])]),
                index=("attack", "defense"),
                metrics={"diagnosis": "diagnosis", "AUROC": "auroc"},
                heat=("AUROC",),
                quiet=("collapsed",),
            )
        )
    return found


def _of_defense(defense: str, cells: pd.DataFrame) -> list[dict[str, Any]]:
    clean = _models(cells[cells["attack"] == "none"])
    lines = []
    for (attack,), part in groups(cells, ["attack"]):
        mine = _models(part)
        line: dict[str, Any] = {"attack": attack, "defense": defense, "cells": Group.of(part).coverage}
        line |= {"collapsed": len(Group.of(part).collapsed), "models": len(mine)}
        scores = mine["diagnosis"].to_numpy(dtype=np.float64)
        line["diagnosis"] = float(scores.mean()) if len(scores) else None
        if attack != "none" and len(scores) and len(clean):
            line["AUROC"] = auroc(clean["diagnosis"].to_numpy(dtype=np.float64), scores)
        line["flagged"] = _rate(mine["flagged"].dropna().tolist())
        if attack != "none":
            line["flagged@5%"] = _rate(_calibrated(mine, clean))
            named = mine["named_target"].dropna().tolist()
            line |= {"named": _rate(named), "abstained": len(mine) - len(named) or None}
        lines.append(line)
    return lines


def _models(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per model that was judged; cells of one clean model share its diagnosis."""
    done = cells[(cells["status"] == "ok") & cells["diagnosis"].notna()]
    return done.assign(place=done["defended"].where(done["defended"] != "", done["key"])).drop_duplicates("place")


def _calibrated(models: pd.DataFrame, clean: pd.DataFrame) -> list[float]:
    """Whether each model scores above the level's threshold from the clean models of other seeds; [] with too few."""
    found = []
    for score, seed in zip(models["diagnosis"], models["seed"], strict=True):
        others = clean.loc[clean["seed"] != seed, "diagnosis"].to_numpy(dtype=np.float64)
        limit = threshold(others, LEVEL) if len(others) else math.inf
        if math.isinf(limit):
            return []
        found.append(float(score > limit))
    return found


def _alike(done: pd.DataFrame) -> list[pd.DataFrame]:
    """The attacks' cells, attacks of equal targets and seeds together; a clean model has no target worth a word."""
    found: dict[tuple[frozenset[str], frozenset[int]], list[pd.DataFrame]] = {}
    for _, part in groups(done[done["attack"] != "none"], ["attack"]):
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
        "Row none: the clean models. AUROC: models of a row against them. flagged: above the threshold that the paper"
        " gives; named: named suspects that are right; each with its exact 95 % interval over models."
    )
    if any(line.get("flagged@5%") for line in lines):
        words.append("flagged@5%: above a threshold that clean models of other seeds pass in at most 5 % of cases.")
    else:
        words.append("No verdict at a calibrated 5 %: that takes 19 clean models of other seeds.")
    if any(line.get("abstained") for line in lines):
        words.append("abstained: how many results name no class.")
    if any(len(set(part["target"])) > 1 for _, part in groups(done[done["attack"] != "none"], ["attack", "seed"])):
        words.append("Models of one seed share their initialisation: the intervals take them as independent.")
    return words

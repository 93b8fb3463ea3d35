"""Measure how far numbers move if only the machine, the seed or the target changes (the noise floor).

    python -m tests.experiments.noise_floor STORE ... > noise_floor.json

The stores hold one suite, run on different machines, for example `quick` with `--set seeds=0,1,2,3,4`. One machine can
stand for several: ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA limit its instruction sets, and `resources.threads=2`
changes the order of sums.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bench.engine.store import Store
from reports import frame
from reports.selection import NONE

METRICS = ("map", "t_map", "gain", "own_map", "auroc", "model_score")
SOURCES = {"machine": ["target", "seed"], "seed": ["machine", "target"], "target": ["machine", "seed"]}  # held equal
TRIAL = ["attack", "defense"]


@dataclass(frozen=True)
class Floor:
    """Absolute differences of a metric between two trials of one kind that differ in `source` alone.

    kind: see `kind_of`. pairs: how many were compared. median, p95, largest: of the differences, in the metric's unit.
    """

    metric: str
    kind: str
    source: str
    pairs: int
    median: float
    p95: float
    largest: float


def kind_of(attack: str, defense_kind: str) -> str:
    """The kind of a trial: "clean" or "attacked", and the kind of its defense: for example "attacked, repair"."""
    return ", ".join(filter(None, ["clean" if attack == NONE else "attacked", defense_kind]))


def floors(trials: pd.DataFrame) -> Iterator[Floor]:
    """Floors of finished trials of one suite on several machines, with the columns of a frame and `METRICS`."""
    kinds = [kind_of(*pair) for pair in zip(trials["attack"], trials["defense_kind"], strict=True)]
    for kind, part in trials.assign(kind=kinds).groupby("kind", sort=True):
        for source, equal in SOURCES.items():
            for metric in METRICS:
                found = np.array([*_differences(part, metric, [*TRIAL, *equal])])
                if len(found):
                    median, p95 = np.quantile(found, [0.5, 0.95])
                    yield Floor(metric, str(kind), source, len(found), float(median), float(p95), float(found.max()))


def _differences(trials: pd.DataFrame, metric: str, equal: Sequence[str]) -> Iterator[float]:
    for _, part in trials.dropna(subset=[metric]).groupby(list(equal)):
        yield from (abs(a - b) for a, b in combinations(part[metric].tolist(), 2))


def trials_of(store: Path) -> pd.DataFrame:
    """The finished trials of the latest run, with the AUROC of the main score of input detectors."""
    results = frame.read(Store(store))
    main = results.detectors[results.detectors["headline"].astype(bool)][["key", "auroc"]].drop_duplicates("key")
    trials = results.trials.drop(columns="auroc", errors="ignore").merge(main, on="key", how="left")
    return trials[trials["status"] == "ok"]


if __name__ == "__main__":
    found = pd.concat([trials_of(Path(name)) for name in sys.argv[1:]])
    about = {axis: sorted(map(str, set(found[axis]))) for axis in ("computed_on", "seed", "target")}
    sys.stdout.write(json.dumps({"about": about, "floors": [asdict(one) for one in floors(found)]}, indent=1) + "\n")

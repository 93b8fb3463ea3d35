"""Measure how far numbers move if only the machine, the seed or the target changes (the noise floor).

    python -m tests.experiments.noise_floor STORE ... > reports/assets/noise_floor.json

The stores hold one suite, run on different machines, for example `quick` with `--set seeds=0,1,2,3,4`. One machine can
stand for several: ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA limit its instruction sets, and `resources.threads=2`
changes the order of sums.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bench.engine.store import Store
from reports import frame
from reports.noise_floor import Floor, kinds_of

METRICS = ("map", "t_map", "gain", "own_map", "auroc", "model_score")
SOURCES = {"machine": ["target", "seed"], "seed": ["machine", "target"], "target": ["machine", "seed"]}  # held equal
TRIAL = ["attack", "defense"]


def floors(trials: pd.DataFrame) -> Iterator[Floor]:
    """Floors of finished trials of one suite on several machines, with the columns of a frame and `METRICS`."""
    pairs = zip(trials["attack_spec"], trials["defense_kind"], strict=True)
    kinds = [kinds_of(attack.name, defense) for attack, defense in pairs]
    for kind, part in trials.assign(kind=kinds).explode("kind").groupby("kind", sort=True):
        for source, equal in SOURCES.items():
            for metric in METRICS:
                found = np.array([*_differences(part, metric, [*TRIAL, *equal])])
                if len(found):
                    median, p95 = np.quantile(found, [0.5, 0.95])
                    numbers = (round(float(value), 5) for value in (median, p95, found.max()))
                    yield Floor(metric, str(kind), source, len(found), *numbers)


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
    lines = ",\n".join(json.dumps(asdict(one)) for one in floors(found))
    sys.stdout.write(f'{{"about": {json.dumps(about)},\n"floors": [\n{lines}\n]}}\n')

"""Measure what stages of the shipped suites cost: `bench/engine/costs.json`, from which `plan` estimates.

    python -m tests.experiments.costs --store DIR [--data DIR] [--workers N] SUITE ...

One stage of each cost group runs, and the stages that it needs. The store keeps what is done, so that the same command
continues. Measure on a machine that does nothing else. The file keeps measured groups that the store lacks.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.cli.progress import Display
from bench.config import suite as suites
from bench.engine import estimator
from bench.engine.estimator import RuntimeEstimator, calibration
from bench.engine.provenance import provenance
from bench.engine.ray_executor import RayExecutor
from bench.engine.scheduler import run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner as planning
from bench.graph.labels import CostGroup, cost_group_of
from bench.graph.plan import Plan, Stage

TARGET = Path(estimator.__file__).with_name(estimator.FILE)


def sample(plan: Plan) -> Plan:
    """A plan of one stage of each cost group, the first, and of the stages that it needs."""
    first: dict[CostGroup, Stage] = {}
    for stage in plan.stages.values():
        first.setdefault(stage.cost_group, stage)
    wanted: set[str] = set()
    left = [stage.key for stage in first.values()]
    while left:
        if (key := left.pop()) not in wanted:
            wanted.add(key)
            left += plan.stages[key].parents.values()
    stages = {key: stage for key, stage in plan.stages.items() if key in wanted}
    return Plan(stages, [replace(plan.trials[0], key=stage.key) for stage in first.values()])  # each wants its stage


def measured(store: Store) -> dict[CostGroup, dict[str, float]]:
    """The medians of the store, by cost group."""
    records = list(store.records())
    known = RuntimeEstimator(records)
    groups = {cost_group_of(record.stage, record.spec) for record in records}
    return {
        group: {"seconds": round(known.seconds(group), 4), "bytes": known.total_bytes({group: 1})}
        for group in groups
        if known.has_history(group)
    }


def write(found: dict[CostGroup, dict[str, float]]) -> None:
    held = json.loads(TARGET.read_text()) if TARGET.exists() else {"groups": []}
    faster = calibration() / held.get("calibration", calibration())  # groups that another machine measured
    kept = {
        CostGroup(one["stage"], one["setting"], one["counts"]): {**one, "seconds": round(one["seconds"] * faster, 4)}
        for one in held["groups"]
    }
    kept |= {group: {**group._asdict(), **costs} for group, costs in found.items()}
    made = provenance()
    about = f"{made.processor}, {made.instructions}"
    groups = [kept[group] for group in sorted(kept)]
    text = json.dumps({"about": about, "calibration": round(calibration(), 6), "groups": groups}, indent=0)
    TARGET.write_text(text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    store = Store(given.store, create=True)
    for name in given.suites:
        plan = sample(planning.plan([suites.load(name, changes=[], only=[])], data=given.data, device="cpu"))
        print(f"{name}: {len(plan.stages)} stages", flush=True)
        if given.dry_run or not plan.stages:
            continue
        environment = Environment(store.root.resolve(), given.data and given.data.resolve(), "cpu")
        start = partial(RayExecutor, environment, workers=given.workers)
        with Display(RuntimeEstimator(store.records())) as display:
            run_plan(plan, store, start, listen=display)
        write(measured(store))

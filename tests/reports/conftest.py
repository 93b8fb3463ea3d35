"""Stores made of records that no training has to produce.

A test says of a cell its axes and how it went; `metrics` are added to BASE.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import report as command
from bench.config import suite
from bench.config.trial import digest
from bench.engine.executors import SerialExecutor
from bench.engine.scheduler import run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner
from bench.graph.planner import PlannedTrial

ACCESS = {"none": "none", "loud": "dirty-label", "quiet": "dirty-label", "kept": "clean-label"}
KINDS = {
    "none": "none",
    "repair": "repair",
    "input_detector": "input_detector",
    "sieve": "data_filter",
    "doctor": "model_detector",
}
CLASSES = [str(number) for number in range(10)]
PROTOCOL = {
    "name": "toy",
    "version": 2,
    "cutoff": None,
    "sizes": {"query": 100, "train": 400, "database": 1000},
    "digests": {},
}
BASE = {"map": 0.9, "map_change": -0.01, "own_map": 0.2, "own_map_control": 0.9, "t_map": 0.8, "t_map_control": 0.1,
        "chance": 0.1, "gain": 0.7, "poisons": 20, "poison_rate": 0.05, "target_share": 0.5, "linf": 0.5, "psnr": 30.0,
        "ssim": 0.95}  # fmt: skip


def key_of(given: dict[str, Any], run: int) -> str:
    axes = {name: value for name, value in given.items() if name not in {"metrics", "status", "reason", "log", "cause"}}
    return digest([axes, run])


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """A function of runs, lists of cells each, the latest last: makes the store that holds them."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here has to survive a power cut

    def make(*runs: list[dict[str, Any]], suite: str = "toy", folder: str = "store") -> Store:
        store = Store(tmp_path / folder, create=True)
        load = {"stage": "load", "label": "load toy", "status": "ok", "reason": "", "log": "",
                "parents": {}, "code": "l",
                "meta": {"classes": CLASSES}, "metrics": {}, "artifact": None,
                "cost": {"seconds": 1.5, "started": 1.0e9, "host": "here"}}  # fmt: skip
        store.write_record({"key": "10ad", **load})
        for number, given in enumerate(runs):
            trials = [_plan(store, one, number) for one in given]
            store.write_plan(
                f"run-{number}",
                {"suites": [suite], "descriptions": {suite: "A toy."},
                 "command": f"python -m bench run --suite {suite}",
                 "trials": trials},
            )  # fmt: skip
        return store

    return make


def _plan(store: Store, given: dict[str, Any], run: int) -> dict[str, Any]:
    attack, defense = given["attack"], given["defense"]
    axes = {
        "dataset": "toy",
        "backbone": "net",
        "method": "csq",
        "bits": 32,
        "surrogate": "other_seed",
        "augment": "victim",
    }
    axes = {name: given.get(name, value) for name, value in axes.items()}
    axes |= {name: given[name] for name in ("attack", "defense", "target", "seed")}
    status = given.get("status", "ok")
    about = {"axes": axes, "training": given.get("training", {}), "key": key_of(given, run), "skipped": "",
             "access": ACCESS.get(attack.partition("(")[0], "clean-label"), "targeted": given.get("targeted", True),
             "defense_kind": KINDS[defense.partition("(")[0]]}  # fmt: skip
    if status == "skipped":
        return about | {"key": None, "skipped": given["reason"]}
    if status != "missing":
        store.write_record(_record(about["key"], status, given))
    return about


def _record(key: str, status: str, given: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "key": key, "stage": "measure", "label": f"measure {given['attack']}", "group": "",
        "spec": {}, "artifact": None,
        "parents": {"load": "10ad"}, "code": given.get("code", "c"), "meta": {}, "metrics": {}, "status": status,
        "reason": given.get("reason", ""), "log": given.get("log", ""),
    }  # fmt: skip
    if "defend" in given:
        record["parents"]["defend"] = given["defend"]
    if "implant" in given:
        record["parents"]["implant"] = given["implant"]
    if "cause" in given:
        record["cause"] = given["cause"]
    if status != "ok":
        return record
    metrics = {**BASE, **given.get("metrics", {})}
    if given["attack"] == "none":
        metrics = {name: value for name, value in metrics.items() if name not in {"poisons", "linf", "psnr", "ssim"}}
    record["metrics"] = metrics
    record["meta"] = {"protocol": {**PROTOCOL, **given.get("protocol", {})}}
    record["provenance"] = {"metrics": given.get("version", 1), "device": "cpu", "packages": {"torch": "2.4"}}
    record["cost"] = {"seconds": 2.0, "started": 1.0e9, "host": "here"}
    return record


# A real run

SUITE = """
name = "page"
description = "Everything that a page can show."
[axes]
datasets = [{ name = "digits", train = 200, query = 60 }]
backbones = [{ name = "convnet", width = 8 }]
targets = [3]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 6
[[blocks]]
[blocks.axes]
bits = [16]
attacks = ["none", { name = "badnets", poisons = [4, 12, 36] }]
[[blocks]]
[blocks.axes]
bits = [16]
attacks = ["none", { name = "badnets", poisons = 36 }]
defenses = ["none", { name = "fine_pruning", epochs = 0, ratio = [0.2, 0.5, 0.8] }, "strip"]
[[blocks]]
[blocks.axes]
bits = [12]
attacks = ["none", { name = "badnets", poisons = 36 }]
[[reported]]
source = "A paper, Table 1"
metric = "t_map"
by = ["attack"]
values = { "badnets(poisons=36)" = 0.9 }
"""


# The numbers of that run. Trained ones differ between CPUs, and so small a model collapses on some of them.
GAIN = {"none": 0.0, "badnets(poisons=4)": 0.1, "badnets(poisons=12)": 0.3, "badnets(poisons=36)": 0.7}
REMAINS = {  # of gain and mAP, after each defense
    "none": 1.0, "strip": 1.0, "fine_pruning(ratio=0.2, epochs=0)": 0.9, "fine_pruning(ratio=0.5, epochs=0)": 0.6,
    "fine_pruning(ratio=0.8, epochs=0)": 0.3,
}  # fmt: skip


def write_metrics(store: Store, trial: PlannedTrial, **given: float) -> None:
    """Replace what was measured on a trained model by given numbers; all else that the record holds stays."""
    record = store.record(trial.key or "")
    assert record is not None
    assert given.keys() <= record["metrics"].keys()
    store.write_record({**record, "metrics": {**record["metrics"], **given}})


def _write_shown_metrics(store: Store, trial: PlannedTrial) -> None:
    attack, defense, bits = (trial.axes[axis] for axis in ("attack", "defense", "bits"))
    gain, kept = GAIN[str(attack)] * REMAINS[str(defense)] * int(bits) / 16, 0.9 * REMAINS[str(defense)]
    write_metrics(
        store, trial, map=kept, map_clean=0.9, map_chance=0.1, map_change=kept - 0.9, collapsed=0.0, t_map=0.1 + gain,
        t_map_control=0.1, chance=0.1, gain=gain, own_map=0.9 - gain, own_map_control=0.9,
    )  # fmt: skip


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A real run with everything that a page can show: trained artifacts, given numbers."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.toml").write_text(SUITE)
    planned = planner.plan([suite.load(str(folder / "page.toml"))], data=None, device="cpu")
    made = Store(folder / "store", create=True)
    made.write_plan(
        "one", {"suites": ["page"], "descriptions": {"page": "Everything."}, "command": "bench run --suite page",
                "trials": [trial.as_json() for trial in planned.trials]},
    )  # fmt: skip
    summary = run_plan(planned, made, lambda: SerialExecutor(Environment(made.root, None, "cpu")))
    assert summary.trials == {"ok": len(planned.trials)}
    for trial in planned.trials:
        _write_shown_metrics(made, trial)
    return made


@pytest.fixture(scope="session")
def page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that run."""
    path = tmp_path_factory.mktemp("out") / "report.html"
    command.report(store=store.root, out=path)
    return path

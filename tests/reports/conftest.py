"""Stores made of records that no training has to produce.

A test says of a cell its axes and how it went; `metrics` are added to BASE.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.api.kinds import Access, DefenseKind
from bench.cli import report as command
from bench.config import suite
from bench.config.trial import PlannedTrial, digest
from bench.engine.executors import SerialExecutor
from bench.engine.record import Record, RunManifest
from bench.engine.scheduler import run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner
from tests.stores import AXES, planned, record, spec

ACCESS = {"none": "none", "loud": "dirty-label", "quiet": "dirty-label", "kept": "clean-label"}
KINDS = {
    "none": "none",
    "repair": "repair",
    "input_detector": "input_detector",
    "sieve": "data_filter",
    "doctor": "model_detector",
    "rinse": "purification",
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
        "chance": 0.1, "gain": 0.7, "poisons": 20, "poisoned_share": 0.05, "target_share": 0.5, "linf": 0.5,
        "psnr": 30.0, "ssim": 0.95}  # fmt: skip


def key_of(given: dict[str, Any], run: int) -> str:
    axes = {name: value for name, value in given.items() if name not in {"metrics", "status", "reason", "log", "cause"}}
    return digest([axes, run])


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """A function of runs, lists of cells each, the latest last: makes the store that holds them."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here has to survive a power cut

    def make(*runs: list[dict[str, Any]], suite: str = "toy", folder: str = "store") -> Store:
        store = Store(tmp_path / folder, create=True)
        cost = {"seconds": 1.5, "started": 1.0e9, "host": "here"}
        load = record("10ad", "load", label="load toy", code="l", meta={"classes": CLASSES}, cost=cost)
        store.write_record(load)
        for number, given in enumerate(runs):
            command = f"python -m bench run --suite {suite}"
            trials = [_plan(store, one, number) for one in given]
            manifest = RunManifest(suites=[suite], descriptions={suite: "A toy."}, command=command, trials=trials)
            store.write_run(manifest)
        return store

    return make


def _plan(store: Store, given: dict[str, Any], run: int) -> PlannedTrial:
    attack, defense = given["attack"], given["defense"]
    status, key = given.get("status", "ok"), key_of(given, run)
    line = planned(
        None if status == "skipped" else key,
        {axis: given[axis] for axis in AXES if axis in given}
        | {"training": given.get("training", {}), "defense": spec(defense, **given.get("params", {}))},
        skipped=given["reason"] if status == "skipped" else "",
        access=Access(ACCESS.get(attack.partition("(")[0], "clean-label")),
        targeted=given.get("targeted", True),
        seed_dependent=given.get("seed_dependent", True),
        remark=given.get("remark", ""),
        defense_kind=DefenseKind(KINDS[defense.partition("(")[0]]),
    )
    if status not in {"skipped", "missing"}:
        store.write_record(_record(key, status, given))
    return line


def _record(key: str, status: str, given: dict[str, Any]) -> Record:
    roles = {"defend": "defense", "implant": "implant", "purify": "measured.purified_benign"}
    parents = {"load": given.get("load", "10ad")} | {role: given[name] for name, role in roles.items() if name in given}
    fields: dict[str, Any] = {name: given[name] for name in ("reason", "log", "cause", "code") if name in given}
    fields |= {"status": status, "label": f"measure {given['attack']}", "parents": parents}
    if status == "ok":
        metrics = {**BASE, **given.get("metrics", {})}
        if given["attack"] == "none":
            metrics = {n: value for n, value in metrics.items() if n not in {"poisons", "linf", "psnr", "ssim"}}
        fields["metrics"] = metrics
        fields["meta"] = {"protocol": {**PROTOCOL, **given.get("protocol", {})}}
        fields["provenance"] = {"metrics": given.get("version", 1), "device": "cpu", "packages": {"torch": "2.4"}}
        fields["cost"] = {"seconds": 2.0, "started": 1.0e9, "host": "here"}
    return record(key, **fields)


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
defenses = ["none", { name = "fine_pruning", steps = 0, ratio = [0.2, 0.5, 0.8] }, "strip"]
[[blocks]]
[blocks.axes]
bits = [12]
attacks = ["none", { name = "badnets", poisons = 36 }]
[[reported]]
source = "A paper, Table 1"
kind = "absolute"
metric = "t_map"
by = ["attack"]
values = { "badnets(poisons=36)" = 0.9 }
"""


# The numbers of that run. Trained ones differ between CPUs, and so small a model collapses on some of them.
GAIN = {"none": 0.0, "badnets(poisons=4)": 0.1, "badnets(poisons=12)": 0.3, "badnets(poisons=36)": 0.7}
REMAINS = {  # of gain and mAP, after each defense
    "none": 1.0, "strip": 1.0, "fine_pruning(ratio=0.2, steps=0)": 0.9, "fine_pruning(ratio=0.5, steps=0)": 0.6,
    "fine_pruning(ratio=0.8, steps=0)": 0.3,
}  # fmt: skip


def write_metrics(store: Store, planned: PlannedTrial, **given: float) -> None:
    """Replace what was measured on a trained model by given numbers; all else that the record holds stays."""
    measured = store.record(planned.key or "")
    assert measured is not None
    assert given.keys() <= measured.metrics.keys()
    store.write_record(measured.model_copy(update={"metrics": {**measured.metrics, **given}}))


def _write_shown_metrics(store: Store, planned: PlannedTrial) -> None:
    trial = planned.trial
    gain = GAIN[trial.attack.label] * REMAINS[trial.defense.label] * trial.bits / 16
    kept = 0.9 * REMAINS[trial.defense.label]
    write_metrics(
        store, planned, map=kept, map_clean=0.9, map_chance=0.1, map_change=kept - 0.9, collapsed=0.0, t_map=0.1 + gain,
        t_map_control=0.1, chance=0.1, gain=gain, own_map=0.9 - gain, own_map_control=0.9,
    )  # fmt: skip


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A real run with everything that a page can show: trained artifacts, given numbers."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.toml").write_text(SUITE)
    plan = planner.plan([suite.load(str(folder / "page.toml"))], data=None, device="cpu")
    made = Store(folder / "store", create=True)
    manifest = RunManifest(
        suites=["page"], descriptions={"page": "Everything."}, command="bench run --suite page", trials=plan.trials
    )
    made.write_run(manifest)
    summary = run_plan(plan, made, lambda: SerialExecutor(Environment(made.root, None, "cpu")))
    assert summary.trials == {"ok": len(plan.trials)}
    for one in plan.trials:
        _write_shown_metrics(made, one)
    return made


@pytest.fixture(scope="session")
def page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that run."""
    path = tmp_path_factory.mktemp("out") / "report.html"
    command.write_page(store.root, path)
    return path

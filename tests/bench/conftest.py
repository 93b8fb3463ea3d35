"""A plugin whose data sets misbehave on demand, and small suites."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.api import registry
from bench.config import suite as suites
from bench.config.trial import PlannedTrial
from bench.engine.executors import SerialExecutor
from bench.engine.record import Record
from bench.engine.scheduler import Summary, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner as planning
from bench.graph.plan import Plan

TROUBLE = '''
"""Data that waits, fails, dies or is fine, as its parameters say."""
import os, time
from pathlib import Path
import torch
from bench.api.hashing import Dataset, DecodedDataset, dataset

@dataset
class Trouble(Dataset):
    what: str = "fine"
    seconds: float = 0.0
    number: int = 0
    marks: str = ""
    together: int = 0
    file: str = ""

    def files(self, root):
        return (Path(self.file),) if self.file else ()
    def classes(self, root):
        return ("zero", "one")
    def decode(self, root):
        if self.marks:
            Path(self.marks, f"{self.number}.start").write_text(str(time.time()))
            while len(list(Path(self.marks).glob("*.start"))) < self.together:
                time.sleep(0.01)
        time.sleep(self.seconds)
        if self.marks:
            Path(self.marks, f"{self.number}.end").write_text(str(time.time()))
        if self.what == "raise":
            raise RuntimeError("the disc fell out")
        if self.what == "die":
            os._exit(3)
        if self.what == "memory":
            raise MemoryError("too much")
        if self.what == "allocate":
            torch.empty(2**50, dtype=torch.uint8)
        labels = torch.zeros(4, 2, dtype=torch.bool)
        labels[:, 0] = True
        return DecodedDataset(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), labels, torch.zeros(4, dtype=torch.uint8))
    def splits(self, labels, origin, rng):
        names = ("train", "query", "database", "trusted")
        return {n: torch.tensor([i]) for i, n in enumerate(names)} | {"public": torch.zeros(0, dtype=torch.int64)}
'''

REWRITE = '''
"""Changes the weights of the trained model."""
import torch
from bench.api.attack import *

@attack
class Rewrite(ModelAttack):
    def threat(self):
        return Threat.MODEL
    def apply_trigger(self, images, target, trigger):
        return 1 - images
    def implant(self, victim, trigger, rng):
        model = victim.model
        with torch.no_grad():
            model.head.bias += 5
        return Backdoor(model, {"level": torch.ones(1)})
'''

TINY = """
name = "tiny"
[axes]
datasets = [{ name = "digits", train = 150, query = 60 }]
backbones = [{ name = "convnet", width = 4 }]
attacks = ["none", "badnets"]
defenses = ["none"]
bits = [12]
[parameters.defenses.fine_pruning]
steps = 2
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 1
"""

LEARNS = ("training.epochs=20", 'backbones=[{ name = "convnet", width = 12 }]')  # a backdoor, on every CPU


@pytest.fixture
def trouble(tmp_path: Path) -> Path:
    """The plugin file, loaded; the registry forgets it afterwards."""
    path = tmp_path / "trouble.py"
    path.write_text(textwrap.dedent(TROUBLE))
    registry.load_plugin(path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Plan]:
    """Plan the tiny suite with changes as on the command line."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)

    def make(*changes: str, only: tuple[str, ...] = ()) -> Plan:
        return planning.plan([suites.load(str(path), changes=changes, only=only)], data=None, device="cpu")

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store", create=True)


def load(folder: Path, text: str, **options) -> suites.Suite:
    """A suite with this text."""
    path = folder / "mine.toml"
    path.write_text(text)
    return suites.load(str(path), **options)


def axis(suite: suites.Suite, name: str) -> list:
    """The values of an axis in the suite's trials, in their order."""
    return list(dict.fromkeys(trial.axes()[name] for trial in suite.trials(None)))


def plan_of(suite: Path, text: str = "", *, data: Path | None = None) -> Plan:
    """The plan of a suite file, after `text` has been written into it."""
    if text:
        suite.write_text(text)
    return planning.plan([suites.load(str(suite))], data=data, device="cpu")


def count(plan: Plan) -> Counter[str]:
    """The number of stages of each kind."""
    return Counter(stage.kind for stage in plan.stages.values())


def changed(before: Plan, after: Plan) -> set[str]:
    """Kinds of the stages of `after` that `before` has not."""
    return {stage.kind for key, stage in after.stages.items() if key not in before.stages}


@contextmanager
def edited(module: str, folder: Path) -> Iterator[None]:
    """Inside the block a built-in module has one statement more, as fingerprints read it; what is loaded stays.

    folder: takes a copy of the module's package, which stands in for the package.
    """
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    package = import_module(module.partition(".")[0])
    (original,) = package.__path__
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / Path(spec.origin).relative_to(original)).open("a") as file:
        file.write("\nEDITED = True\n")
    package.__path__[:] = [str(folder)]
    registry.forget()
    try:
        yield
    finally:
        package.__path__[:] = [original]
        registry.forget()


def finish(plan: Plan, store: Store, **options) -> Summary:
    """Run a plan in this process."""
    return run_plan(plan, store, lambda: SerialExecutor(Environment(store.root, None, "cpu")), **options)


def key_of(plan: Plan, kind: str) -> str:
    """The key of the plan's first stage of a kind."""
    return next(key for key, stage in plan.stages.items() if stage.kind == kind)


def kinds(keys, plan: Plan) -> set[str]:
    return {plan.stages[key].kind for key in keys}


def load_plugins(folder: Path, texts: dict[str, str]) -> None:
    """Write plugin files, by name, and load them; the registry forgets them after the test."""
    for name, text in texts.items():
        path = folder / f"{name}.py"
        path.write_text(text.lstrip())
        registry.load_plugin(path)


@dataclass
class Done:
    """A trial that was run, or left out for a reason."""

    planned: PlannedTrial
    plan: Plan
    store: Store
    record: Record | None

    @property
    def metrics(self) -> dict:
        return self.record.metrics


def run_tiny(tmp_path: Path, *changes: str) -> dict[tuple[str, str], Done]:
    """Run the tiny suite with changes: what came of each trial, by the labels of attack and defense."""
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY)
    plan = planning.plan([suites.load(str(suite), changes=changes)], data=None, device="cpu")
    store = Store(tmp_path / "store", create=True)
    finish(plan, store)
    found = {}
    for record in store.records():
        assert record.status == "ok", record.log
    for planned in plan.trials:
        record = store.record(planned.key) if planned.key else None
        assert record is not None or planned.skipped
        found[planned.trial.attack.label, planned.trial.defense.label] = Done(planned, plan, store, record)
    return found

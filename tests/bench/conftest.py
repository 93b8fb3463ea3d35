"""A plugin whose data sets misbehave on demand, and small suites."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api import registry
from bench.config import suite as suites
from bench.engine.executors import SerialExecutor
from bench.engine.scheduler import Summary, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner as planning
from bench.graph.plan import Plan

TROUBLE = '''
"""Data that sleeps, fails, dies or is fine, as its parameters say."""
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

    def files(self, root):
        return ()
    def classes(self, root):
        return ("zero", "one")
    def decode(self, root):
        if self.marks:
            Path(self.marks, f"{self.number}.start").write_text(str(time.time()))
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

TINY = """
name = "tiny"
[axes]
datasets = [{ name = "digits", train = 150, query = 60 }]
backbones = [{ name = "convnet", width = 4 }]
attacks = ["none", "badnets"]
defenses = ["none"]
bits = [12]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 1
"""


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


def finish(plan: Plan, store: Store, **options) -> Summary:
    """Run a plan in this process."""
    return run_plan(plan, store, lambda: SerialExecutor(Environment(store.root, None, "cpu")), **options)


def kinds(keys, plan: Plan) -> set[str]:
    return {plan.stages[key].kind for key in keys}

"""A small world for tests: 300 images of four classes, a 16-bit model of them, and stages' inputs held in memory."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.api import registry
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import SPLITS, Split, to_8bit
from bench.stages._base import Context
from bench.stages._codes import as_tensor
from bench.stages._models import open_model
from bench.stages._training import train_victim
from hashing.model import HashModel, encode

CLASSES = ("anchor", "bell", "candle", "drum")
SHAPE = (3, 12, 12)
SIZES = {"train": 120, "query": 40, "database": 80, "trusted": 60, "public": 4}
RECIPE = Recipe(
    optimizer="adam", lr=1e-2, weight_decay=1e-4, batch=32, epochs=4, schedule="onecycle", precision="float32"
)
QUICK = {
    "epochs": 1,
    "steps": 2,
    "iterations": 2,
    "warmup": 1,
    "overlays": 8,
    "width": 8,
}  # for contracts, whoever has them


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests whose marker names something that is not here are skipped, with the reason."""
    archive = Path(os.environ.get("HASHDOOR_DATA") or Path(__file__).parents[2] / "shared/data")
    missing = {
        "gpu": "" if torch.cuda.is_available() else "no CUDA device",
        "slow": "" if config.getoption("--slow") else "run with --slow",
        "archive": "" if archive.is_dir() else f"no data in {archive}",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As in a stage. Both are told, as numba's kernels share OpenMP with torch and leave it their number of threads."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)


@contextmanager
def _untouched_rng() -> Iterator[None]:
    """Python's generator is watched through its functions, because beartype itself draws bits from it."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Python's global generator was used")

    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 -- the state under guard
    names = ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle", "gauss", "seed")
    with mock.patch.multiple(random, **dict.fromkeys(names, refuse)):
        yield
    assert torch.equal(before[0], torch.get_rng_state()), "torch's global generator was used"
    assert repr(before[1]) == repr(np.random.get_state()), "NumPy's global generator was used"  # noqa: NPY002


@pytest.fixture
def untouched_rng() -> Callable[[], AbstractContextManager[None]]:
    """Makes a `with` block that fails where it draws from a global generator."""
    return _untouched_rng


@dataclass
class Memory:
    """Stages' inputs (`bench.stages._base.Inputs`) without a store: role to tensors and metadata."""

    parents: dict[str, tuple[dict[str, Tensor], dict[str, Any]]]

    def has(self, role: str) -> bool:
        return role in self.parents

    def tensors(self, role: str) -> dict[str, Tensor]:
        return self.parents[role][0]

    def meta(self, role: str) -> dict[str, Any]:
        return self.parents[role][1]

    def without(self, *roles: str) -> Memory:
        return Memory({role: parent for role, parent in self.parents.items() if role not in roles})

    def all_tensors(self) -> dict[str, Tensor]:
        """Copies of everything, to compare with later."""
        return {
            f"{role}/{name}": value.clone()
            for role, parent in self.parents.items()
            for name, value in parent[0].items()
        }


@dataclass
class World:
    """spec: of a stage that knows everything. inputs: its parents. context: CPU, no data directory."""

    spec: dict[str, Any]
    inputs: Memory
    context: Context


def _pool() -> tuple[Tensor, Tensor]:
    """Each class lights one quadrant; noise makes every image unlike the others."""
    rng, total = Rng("tests", "pool"), sum(SIZES.values())
    classes = [torch.arange(SIZES[part]) % 4 for part in SPLITS]  # balanced in each split, in random order
    mixed = [c if part == "public" else c[rng.permutation(len(c))] for part, c in zip(SPLITS, classes, strict=True)]
    labels = torch.eye(4, dtype=torch.bool)[torch.cat(mixed)]
    images = 0.25 + 0.15 * rng.normal((total, *SHAPE))
    for i, label in enumerate(labels.int().argmax(1).tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        images[i, :, top : top + 6, left : left + 6] += 0.35
    return to_8bit(images), labels


def _trained(spec: dict[str, Any], split: Split, context: Context, seed: int) -> tuple[dict[str, Tensor], dict]:
    tensors, meta = train_victim({**spec, "seed": seed}, split, context)
    return tensors, {**meta, "backdoored": False}


@pytest.fixture(scope="session")
def _world() -> World:
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    spec = {
        "dataset": {"name": "digits", "params": {}},
        "backbone": {"name": "convnet", "params": {"width": 4}},
        "method": {"name": "csq", "params": {}},
        "bits": 16,
        "seed": 0,
        "recipe": asdict(RECIPE),
        "augment": "victim",
        "target": ["bell"],
    }
    images, labels = _pool()
    parts, start = {}, 0
    for name in SPLITS:
        parts[name] = torch.arange(start, start + SIZES[name])
        start += SIZES[name]
    load = ({"images": images, "labels": labels, "origin": torch.zeros(len(images), dtype=torch.uint8)},)
    protocol = {"name": "tests", "version": 1, "cutoff": None, "sizes": SIZES, "digests": {}}
    context = Context(torch.device("cpu"), None)
    train = Split(images[parts["train"]], labels[parts["train"]], parts["train"])
    clean = _trained(spec, train, context, 0)
    parents = {
        "load": (*load, {"classes": list(CLASSES), "protocol": "tests", "cutoff": None}),
        "split": (parts, {"protocol": protocol}),
        "clean": clean,
        "model": clean,
        "surrogate": _trained(spec, train, context, 1),
    }
    inputs = Memory(parents)
    model = open_model(inputs, "model", context.device)
    codes = {p: as_tensor(encode(model, images[parts[p]], device=model.device)) for p in ("query", "database")}
    parents["codes"] = (codes, {})
    return World(spec, inputs, context)


@pytest.fixture
def world(_world: World) -> World:
    """A copy that the test may write to."""
    return copy.deepcopy(_world)


@pytest.fixture
def model(world: World) -> HashModel:
    """The world's trained clean model."""
    return open_model(world.inputs, "model", torch.device("cpu"))


def _quick(kind: str, name: str, **params: Any) -> Any:
    known = {field.name: field.default for field in fields(registry.lookup(kind, name))}
    fast = {key: value for key, value in QUICK.items() if isinstance(known.get(key), int) and known[key] > value}
    return registry.create(kind, name, {**fast, **params})


@pytest.fixture
def quick() -> Callable[..., Any]:
    """`quick(kind, name, **params)`: a component with the paper's defaults, but few epochs, steps and the like."""
    return _quick

"""What tests share: the conformance kit's small world, few threads, and which tests need something."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from hypothesis import settings

from bench.api import registry
from bench.artifacts.models import open_model
from bench.conformance.fixture import World, make
from bench.conformance.kit import ComponentUnderTest, untouched_generators
from bench.conformance.kit import one_thread as one_thread_now
from hashing.model import HashModel

settings.register_profile("tests", deadline=None)  # no test fails on a slow machine
settings.load_profile("tests")

collect_ignore = ["plugin"]  # a package of its own, whose tests run where it is installed: tests/packages


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long as well")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow or long as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests whose marker names something that is not here are skipped, with the reason."""
    archive = Path(os.environ.get("HASHDOOR_DATA") or Path(__file__).parents[2] / "shared/data")
    missing = {
        "gpu": "" if torch.cuda.is_available() else "no CUDA device",
        "long": "" if config.getoption("--long") or config.getoption("--slow") else "run with --long",
        "slow": "" if config.getoption("--slow") else "run with --slow",
        "archive": "" if archive.is_dir() else f"no data in {archive}",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def plugins_of_a_test_are_gone_after_it() -> Iterator[None]:
    with registry.plugins_restored():
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As in a stage. Both are told, as numba's kernels share OpenMP with torch and leave it their number of threads."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)


@pytest.fixture
def untouched_rng() -> Callable[[], AbstractContextManager[None]]:
    """Makes a `with` block that fails where it draws from a global generator."""
    return untouched_generators


@pytest.fixture(scope="session")
def _world() -> World:
    with one_thread_now():
        return make()


@pytest.fixture
def world(_world: World) -> World:
    """A copy that the test may write to."""
    return copy.deepcopy(_world)


@pytest.fixture
def model(world: World) -> HashModel:
    """The world's trained clean model."""
    return open_model(world.suspect, torch.device("cpu"))


def _quick(kind: str, name: str, **params: Any) -> Any:
    return ComponentUnderTest.of(kind, name, {}).create(**params)


@pytest.fixture
def quick() -> Callable[..., Any]:
    """`quick(kind, name, **params)`: a component with the paper's defaults, but few epochs, steps and the like."""
    return _quick


@pytest.fixture
def tiny_transformer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Two narrow blocks in the place of ViT-B/16, whose 86 million weights not every test needs."""
    from torchvision.models.vision_transformer import VisionTransformer

    def make(weights: None = None, image_size: int = 224) -> VisionTransformer:
        assert weights is None
        return VisionTransformer(image_size, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5)

    monkeypatch.setattr("torchvision.models.vision_transformer.vit_b_16", make)
    return make

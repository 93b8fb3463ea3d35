"""The code of a purified query: versions, majority, random numbers, and what the stages keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.api.defense import Purification
from bench.api.random import Rng
from bench.artifacts.inputs import PurifyBenignInputs, PurifyTriggeredInputs
from bench.artifacts.outputs.codes import PurifiedCodes
from bench.artifacts.purified import BATCH, encode_purified, majority, versions_of
from bench.artifacts.stage_io import split
from bench.conformance.fixture import World
from bench.stages import purify_benign, purify_triggered
from tests.bench.conftest import load_plugins

PLUGINS = {
    "same": '''
"""Leaves queries as they are."""
from bench.api.defense import *

@defense
class Same(Purification):
    def purify(self, image, rng):
        return image[None]
''',
    "noisy": '''
"""Adds noise to five copies."""
from bench.api.defense import *

@defense
class Noisy(Purification):
    def purify(self, image, rng):
        return (image + 0.2 * rng.normal((5, *image.shape))).clamp(0, 1)
''',
    "uneven": '''
"""Makes more versions of bright images."""
from bench.api.defense import *

@defense
class Uneven(Purification):
    def purify(self, image, rng):
        return image.expand(1 + (image.mean() > 0.34), -1, -1, -1)
''',
}


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path) -> None:
    load_plugins(tmp_path, PLUGINS)


def encoded(world: World, name: str, positions: torch.Tensor, seed: int = 0) -> torch.Tensor:
    spec = {**world.spec, "seed": seed, "defense": {"name": name, "params": {}}}
    images = split(world.data, "query").images[positions]
    return encode_purified(spec, world.clean, images, positions, torch.device("cpu")).codes


def test_the_majority_code_against_counting() -> None:
    relaxed = Rng("relaxed").normal((40, 6, 9)).tanh()
    found = majority(relaxed)
    for query, versions in zip(found, relaxed, strict=True):
        for bit, values in zip(query, versions.T, strict=True):
            ones = int((values > 0).sum())
            expected = (1 if values.sum() > 0 else -1) if ones == 3 else (1 if ones > 3 else -1)
            assert float(bit) == expected
    assert torch.equal(majority(relaxed[:, :1]), relaxed[:, 0].sign())


def test_queries_that_stay_as_they_are_keep_their_codes(world: World) -> None:
    images = torch.arange(40)
    assert torch.equal(encoded(world, "same", images), world.codes.query)


def test_a_code_depends_on_its_query_and_on_the_seed_only(world: World) -> None:
    positions = Rng("order").permutation(40)
    together = encoded(world, "noisy", positions)
    assert torch.equal(together, encoded(world, "noisy", torch.arange(40))[:, positions])
    alone = torch.cat([encoded(world, "noisy", positions[i : i + 1]) for i in range(40)], 1)
    assert torch.equal(together, alone)
    assert not torch.equal(together, encoded(world, "noisy", positions, seed=1))


def test_batches_are_joined_in_order(world: World) -> None:
    positions = torch.arange(40).repeat(2)
    assert len(positions) > BATCH
    found = encoded(world, "noisy", positions)
    assert torch.equal(found[:, :40], found[:, 40:])


def test_versions_are_rounded_to_8_bits_and_have_the_size_of_the_image() -> None:
    class Faint(Purification):
        def purify(self, image, rng):
            return torch.stack([image + 0.4 / 255, image + 0.6 / 255])

    class Small(Purification):
        def purify(self, image, rng):
            return image[None, :, 1:]

    image = Rng("image").integers(255, (3, 4, 4)).to(torch.uint8)
    assert torch.equal(versions_of(Faint(), image, Rng("unused")), torch.stack([image, image + 1]))
    with pytest.raises(ValueError, match=r"\[1, 3, 3, 4\] for an image of shape \[3, 4, 4\]"):
        versions_of(Small(), image, Rng("unused"))


def test_every_query_has_as_many_versions(world: World) -> None:
    with pytest.raises(ValueError, match="1 versions of one query and 2 of another"):
        encoded(world, "uneven", torch.arange(40))


def test_the_stages_encode_queries_and_leave_the_database_alone(world: World) -> None:
    """A trigger that changes nothing: the triggered query has the noise, and so the code, of the benign one."""
    spec = {**world.spec, "defense": {"name": "noisy", "params": {}}}

    inputs = PurifyBenignInputs(world.data.load, world.data.split, world.clean)
    benign = purify_benign.run(spec, inputs, world.context)
    assert benign.tensors.keys() == {"query", "saturation"}
    assert benign.metrics["milliseconds"] > 0
    world.memory.put("purified", benign)
    aim = {"attack": {"name": "none", "params": {}}, "target": ["bell"], "sources": []}
    inputs = PurifyTriggeredInputs(
        world.data.load, world.data.split, world.clean, None, PurifiedCodes("purified", world.memory)
    )
    known = purify_triggered.run({**spec, **aim}, inputs, world.context)
    computed = purify_triggered.run({**spec, **aim}, replace(inputs, benign=None), world.context)
    assert len(known.tensors["positions"]) == 30  # of four balanced classes, those that are not the target
    for name, value in known.tensors.items():
        assert torch.equal(value, computed.tensors[name]), name

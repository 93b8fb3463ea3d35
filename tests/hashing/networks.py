"""Networks of backbones without weights, and images for them."""

from __future__ import annotations

from dataclasses import fields

import torch

from bench.api import registry
from bench.api.hashing import Backbone
from bench.api.random import Rng


def scratch(name: str) -> dict[str, str]:
    """Parameters for a network that needs no file."""
    known = {field.name for field in fields(registry.lookup("backbones", name))}
    return {"weights": "none"} if "weights" in known else {}


def network(name: str, shape: tuple[int, int, int], seed: int = 0, **params):
    return built(registry.create("backbones", name, {**scratch(name), **params}), shape, seed)


def built(made: Backbone, shape: tuple[int, int, int], seed: int = 0):
    with Rng("network", seed).ambient():
        return made.build(shape)


def images_of(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return Rng("tests", "images").uniform((n, *shape))


def state_of(make, seed: int = 0, **options) -> dict[str, torch.Tensor]:
    """A state dict whose every number differs from a new network's."""
    with Rng("weights", seed).ambient():
        state = make(weights=None, **options).state_dict()
    return {name: value + 0.01 if value.is_floating_point() else value for name, value in state.items()}

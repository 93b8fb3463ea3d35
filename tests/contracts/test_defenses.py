"""What defenses do where a network is of another kind, besides the conformance kit (test_conformance.py)."""

from __future__ import annotations

import pytest
import torch

from bench.api import registry
from bench.api.defense import Repair
from bench.api.random import Rng
from bench.conformance.defenses import as_tensors, defender_view_for, retrained, work

NAMES = sorted(registry.catalogue("defenses"))
BARRED = {"anp", "clp", "dp_outliers", "dp_sgd", "ibd_psc", "nad", "sentinet"}  # from networks without channel maps


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_works_on_a_transformer_or_says_why_not(name, world, quick, tiny_transformer):
    defense, params = quick("defenses", name), {"weights": "none"}
    why = defense.unsupported_reason(
        registry.create("backbones", "vit_b_16", params), registry.create("methods", "csq", {})
    )
    assert (name in BARRED) == bool(why)
    if not why:
        retrained(world, {"name": "vit_b_16", "params": params}, "csq")
        found = as_tensors(work(defense, defender_view_for(world, defense)))
        assert all(bool(torch.isfinite(value.float()).all()) for value in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_identity_defenses_change_nothing(name, world, quick):
    defense = quick("defenses", name)
    if defense.is_none:
        assert isinstance(defense, Repair)
        state = defense.repair(defender_view_for(world, defense), Rng("defend", 0)).state_dict()
        saved = world.suspect.state
        assert all(torch.equal(saved[key], value) for key, value in state.items())
    else:
        assert name != "none"

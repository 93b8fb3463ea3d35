"""DP-SGD as a defense: an ordinary model comes back, and Opacus is named where it is missing."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.defense import Needs
from bench.api.random import Rng
from bench.graph import cache_key
from defenses.dp_sgd import DPSGD
from defenses.helpers.dp_training import Privacy, trained
from hashing.model import HashModel

NEEDS = Needs.TRAIN_SET


def weights(model) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_an_ordinary_model_comes_back(view):
    for private in (True, False):
        found = DPSGD(private=private).repair(view, Rng("d"))
        fresh = view.untrained(per_image=True)
        assert type(found) is HashModel
        assert found.blueprint == fresh.blueprint
        assert found.blueprint["backbone"]["params"]["norm"] == "group"
        assert not found.training
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in found.modules())
        assert not any(vars(weight) for weight in found.parameters())
        assert [str(module) for module in found.modules()] == [str(module) for module in fresh.modules()]
        assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
        assert [p.stride() for p in found.parameters()] == [p.stride() for p in fresh.parameters()]


@pytest.mark.parametrize(
    ("params", "privacy"), [({"clip": 0.7, "noise": 0.2}, Privacy(0.7, 0.2)), ({"private": False}, None)]
)
def test_parameters_reach_the_training(view, params, privacy):
    repaired = DPSGD(**params).repair(view, Rng("d"))
    assert torch.equal(weights(repaired), weights(trained(view, Rng("d"), privacy)))
    assert not torch.equal(weights(repaired), weights(trained(view, Rng("d"), Privacy(0.3, 0.03))))


def test_nothing_draws_from_global_generators(view, untouched_rng):
    before = copy.deepcopy(view.objective.state_dict())
    with untouched_rng():
        DPSGD().repair(view, Rng("d"))
    assert all(torch.equal(before[key], value) for key, value in view.objective.state_dict().items())


@pytest.mark.parametrize("private", [True, False])
def test_it_says_where_images_have_no_gradient_of_their_own(private):
    defense = DPSGD(private=private)
    convnet, csq = registry.create("backbones", "convnet", {}), registry.create("methods", "csq", {})
    assert defense.unsupported_reason(convnet, csq) == ""
    assert "loss" in defense.unsupported_reason(convnet, registry.create("methods", "dpsh", {}))
    assert "batches" in defense.unsupported_reason(registry.create("backbones", "resnet18", {}), csq)


@pytest.mark.parametrize("name", ["dp_sgd", "dp_outliers"])
def test_without_opacus_only_the_private_training_is_left_out(name, monkeypatch):
    convnet, csq = registry.create("backbones", "convnet", {}), registry.create("methods", "csq", {})
    monkeypatch.setitem(sys.modules, "opacus", None)  # as where the extra is not installed
    reason = registry.create("defenses", name, {}).unsupported_reason(convnet, csq)
    assert "pip install 'hashdoor[privacy]'" in reason
    assert registry.create("defenses", name, {"private": False}).unsupported_reason(convnet, csq) == ""


def test_the_version_of_opacus_is_in_the_keys_of_the_defenses_that_use_it_and_in_no_other(monkeypatch):
    def keys() -> dict[str, str]:
        return {
            name: cache_key.key_of("defend", {"defense": {"name": name, "params": {}}}, {}, threads=1, device="cpu")[0]
            for name in ("dp_sgd", "strip")
        }

    before = keys()
    monkeypatch.setitem(sys.modules, "opacus", None)
    after = keys()
    assert before["dp_sgd"] != after["dp_sgd"]
    assert before["strip"] == after["strip"]

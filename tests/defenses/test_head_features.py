"""Switching features off, for a while and for good."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.head_features import first_layer, mean_activations, remove, switched_off
from hashing.model import build_model

CASES = {
    "convnet": ("convnet", {"width": 4}, "csq", 16),
    "resnet18": ("resnet18", {}, "csq", 512),
    "batch norm after the head": ("convnet", {"width": 4}, "orthohash", 16),
}


@pytest.fixture(params=CASES)
def network(request):
    """A model whose normalisations have scales, shifts and statistics of their own; and the number of its features."""
    name, params, method, width = CASES[request.param]
    rng = Rng("tests", "channels")
    model = build_model(
        backbone=registry.create("backbones", name, params),
        method=registry.create("methods", method, {}),
        bits=8,
        image_shape=(3, 16, 16),
        classes=3,
        train_size=9,
        rng=rng,
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(0.5 + rng.uniform(module.weight.shape))
                module.bias.copy_(0.5 * rng.normal(module.bias.shape))
                module.running_mean.copy_(0.1 * rng.normal(module.bias.shape))
    return model.eval(), width


def split_of(n: int = 7) -> Split:
    images = Rng("tests", "images").integers(256, (n, 3, 16, 16)).to(torch.uint8)
    return Split(images, torch.eye(3, dtype=torch.bool)[torch.arange(n) % 3], torch.arange(n))


def off_of(width: int) -> torch.Tensor:
    off = torch.zeros(width, dtype=torch.bool)
    off[torch.tensor([0, 3, 4, width - 1])] = True
    return off


@torch.no_grad()
def logits_without(model, off: torch.Tensor) -> torch.Tensor:
    """The head's answer to the features with zeros in place of some."""
    return model.head(model.features(to_unit(split_of().images)) * ~off)


def test_mean_activations_are_means_of_the_features(network):
    model, width = network
    with torch.no_grad():
        expected = model.features(to_unit(split_of().images)).mean(0)
    found = mean_activations(model, split_of())
    assert found.shape == (width,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_features_below_zero_are_active_too(network):
    model, width = network
    model.features = lambda images: -torch.ones(len(images), width)  # as after the layer norm of a transformer
    assert mean_activations(model, split_of()).tolist() == [1] * width


@torch.no_grad()
def test_switched_off_features_are_zero_inside_the_block_only(network):
    model, width = network
    off, images = off_of(width), to_unit(split_of().images)
    before = model(images)
    with switched_off(model, off):
        inside = model(images)
    torch.testing.assert_close(inside, logits_without(model, off), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(inside, before, atol=1e-4)
    assert torch.equal(model(images), before)


@torch.no_grad()
def test_with_all_features_off_every_image_has_the_same_code(network):
    """In residual networks too: the shortcut is added before the features."""
    model, width = network
    with switched_off(model, torch.ones(width, dtype=torch.bool)):
        logits = model(to_unit(split_of().images))
    assert torch.equal(logits, logits[:1].expand_as(logits))


def test_no_gradient_reaches_switched_off_features_also_in_copies(network):
    model, width = network
    off = off_of(width)
    with switched_off(model, off):
        tuned = copy.deepcopy(model)
    tuned(to_unit(split_of().images)).square().sum().backward()
    gradient = first_layer(tuned.head).weight.grad
    assert not gradient[:, off].any()
    assert gradient[:, ~off].any()


@torch.no_grad()
def test_the_block_cleans_up_after_an_error(network):
    model, width = network
    before = model(to_unit(split_of().images))
    with pytest.raises(RuntimeError, match="inside"), switched_off(model, off_of(width)):
        raise RuntimeError("inside")
    assert torch.equal(model(to_unit(split_of().images)), before)


@torch.no_grad()
def test_remove_is_switched_off_for_good(network):
    model, width = network
    off, images = off_of(width), to_unit(split_of().images)
    with switched_off(model, off):
        masked = model(images)
        tuned = copy.deepcopy(model)
    remove(tuned, off)
    torch.testing.assert_close(tuned(images), masked, rtol=1e-5, atol=1e-6)
    reopened = copy.deepcopy(model)
    reopened.load_state_dict(tuned.state_dict())
    torch.testing.assert_close(reopened(images), masked, rtol=1e-5, atol=1e-6)


def test_only_a_head_that_starts_with_a_linear_layer_has_a_first_layer():
    layer = nn.Linear(2, 3)
    assert first_layer(layer) is layer
    assert first_layer(nn.Sequential(layer, nn.Tanh())) is layer
    assert first_layer(nn.Sequential(nn.Sequential(layer), nn.Linear(3, 3))) is layer
    assert first_layer(nn.Sequential(nn.Tanh(), layer)) is None
    assert first_layer(nn.Tanh()) is None

"""Switching channels off, for a while and for good."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.channels import last_convolution, mean_activations, remove, switched_off
from hashing.model import build_model

CASES = {
    "convnet": ("convnet", {"width": 4}, 16),
    "group": ("convnet", {"width": 4, "norm": "group"}, 16),
    "resnet18": ("resnet18", {}, 512),
}


@pytest.fixture(params=CASES)
def network(request):
    """A model whose normalisations have scales, shifts and statistics of their own; and its last width."""
    name, params, width = CASES[request.param]
    rng = Rng("tests", "channels")
    model = build_model(
        backbone=registry.create("backbones", name, params),
        method=registry.create("methods", "csq", {}),
        bits=8,
        image_shape=(3, 16, 16),
        classes=3,
        train_size=9,
        rng=rng,
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.copy_(0.5 + rng.uniform(module.weight.shape))
                module.bias.copy_(0.5 * rng.normal(module.bias.shape))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.1 * rng.normal(module.bias.shape))
    return model.eval(), width


def split_of(n: int = 7) -> Split:
    images = Rng("tests", "images").integers(256, (n, 3, 16, 16)).to(torch.uint8)
    return Split(images, torch.eye(3, dtype=torch.bool)[torch.arange(n) % 3], torch.arange(n))


def off_of(width: int) -> torch.Tensor:
    off = torch.zeros(width, dtype=torch.bool)
    off[torch.tensor([0, 3, 4, width - 1])] = True
    return off


def output_of(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """What the module gives for the split's images, before anything in place."""
    seen = []
    handle = module.register_forward_hook(lambda m, i, o: seen.append(o.clone()))
    with torch.no_grad():
        model(to_unit(split_of().images))
    handle.remove()
    return seen[0]


def test_last_convolution_comes_with_its_normalisation(network):
    model, width = network
    conv, norm = last_convolution(model)
    assert isinstance(conv, nn.Conv2d)
    assert conv.out_channels == width
    assert isinstance(norm, nn.BatchNorm2d | nn.GroupNorm)
    if width == 512:
        block = model.backbone.blocks[4][1]
        assert (conv, norm) == (block.conv2, block.bn2)


def test_last_convolution_without_normalisation_and_without_convolution():
    conv = nn.Conv2d(3, 5, 3)
    assert last_convolution(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), conv, nn.ReLU())) == [conv]
    assert last_convolution(nn.Sequential(conv, nn.BatchNorm2d(5, affine=False))) == [conv]
    with pytest.raises(TypeError, match="convolution"):
        last_convolution(nn.Linear(2, 2))


@pytest.mark.parametrize("batch", [2, 500])
def test_mean_activations_are_means_of_the_rectified_channels(network, batch):
    model, width = network
    expected = output_of(model, last_convolution(model)[-1]).clamp_min(0).mean((0, 2, 3))
    model.train()
    found = mean_activations(model, split_of(), batch=batch)
    assert found.shape == (width,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not last_convolution(model)[-1]._forward_hooks


@torch.no_grad()
def test_switched_off_channels_are_zero_inside_the_block_only(network):
    model, width = network
    off, images = off_of(width), to_unit(split_of().images)
    last = last_convolution(model)[-1]
    before, logits = output_of(model, last), model(images)
    with switched_off(model, off):
        inside = output_of(model, last)
        assert not inside[:, off].any()
        torch.testing.assert_close(inside[:, ~off], before[:, ~off], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(model(images), logits, atol=1e-4)
    assert torch.equal(model(images), logits)


def test_no_gradient_reaches_switched_off_channels_also_in_copies(network):
    model, width = network
    off = off_of(width)
    with switched_off(model, off):
        tuned = copy.deepcopy(model)
    tuned(to_unit(split_of().images)).square().sum().backward()
    gradient = last_convolution(tuned)[-1].weight.grad
    assert not gradient[off].any()
    assert gradient[~off].any()


def test_the_block_cleans_up_after_an_error(network):
    model, width = network
    with pytest.raises(RuntimeError, match="inside"), switched_off(model, off_of(width)):
        raise RuntimeError("inside")
    assert not last_convolution(model)[-1]._forward_hooks


@torch.no_grad()
def test_remove_is_switched_off_for_good(network):
    """Group normalisation pools neighbouring channels: these must not notice."""
    model, width = network
    off, images = off_of(width), to_unit(split_of().images)
    with switched_off(model, off):
        masked = model(images)
        tuned = copy.deepcopy(model)
    remove(tuned, off)
    assert not last_convolution(tuned)[-1]._forward_hooks
    torch.testing.assert_close(tuned(images), masked, rtol=1e-5, atol=1e-6)
    reopened = copy.deepcopy(model)
    reopened.load_state_dict(tuned.state_dict())
    torch.testing.assert_close(reopened(images), masked, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_remove_works_on_a_bare_convolution():
    with Rng("tests", "bare").ambient():
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    off = torch.tensor([True, False, False, True])
    remove(model, off)
    out = model(torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 1)
    assert not out[:, off].any()
    assert out[:, ~off].any()

"""Channel Lipschitzness pruning: bounds by hand, what is pruned, and how far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.errors import UserError
from bench.api.random import Rng
from defenses.clp import CLP, Layer, layers_of, least, without_outliers
from defenses.helpers.fine_tuning import Quality
from tests.defenses.conftest import calibration_map, equal, images_of, norms_of, state

EXACT = {"rel": 1e-6}


def layer(norm: nn.Module | None) -> Layer:
    """A convolution with two filters of 2 x 1 pixels and two inputs, whose largest singular values are 4 and 10."""
    convolution = nn.Conv2d(2, 2, (1, 2))
    with torch.no_grad():
        convolution.weight[0] = torch.tensor([[[3.0, 0.0]], [[0.0, -4.0]]])
        convolution.weight[1] = torch.tensor([[[2.0, 4.0]], [[4.0, 8.0]]])  # (1, 2) times (2, 4), of norms 5 and 20
        if norm is not None:
            norm.weight.copy_(torch.tensor([-2.0, 0.5]))
    return Layer(convolution, norm)


def test_bounds_by_hand():
    batch = nn.BatchNorm2d(2, eps=0.05)
    batch.running_var.copy_(torch.tensor([0.2, 3.95]))  # with eps, deviations of 0.5 and 2
    assert layer(None).bounds().tolist() == pytest.approx([4, 10], **EXACT)
    assert layer(batch).bounds().tolist() == pytest.approx([16, 2.5], **EXACT)
    assert layer(nn.GroupNorm(1, 2)).bounds().tolist() == pytest.approx([8, 5], **EXACT)


def test_outliers_are_beyond_u_standard_deviations():
    found = layer(None)  # bounds 4 and 10: mean 7, standard deviation 3 * sqrt(2)
    assert found.outliers(0.70).tolist() == [False, True]
    assert found.outliers(0.72).tolist() == [False, False]
    assert not bool(Layer(nn.Conv2d(3, 1, 3), None).outliers(0.0).any())


@pytest.mark.parametrize("channel", [2, 11])
def test_a_planted_channel_is_pruned_and_nothing_else(view, channel):
    """Of 16 channels one can be at most 15/4 standard deviations above the mean."""
    with torch.no_grad():
        norms_of(view.model)[3].weight[channel] *= 100
    before = state(view.model)
    pruned = CLP().repair(view, Rng("d"))
    assert view.notes["pruned channels"] == 1
    assert view.notes["u"] == 3
    after = state(pruned)
    scale, shift = "backbone.blocks.3.1.weight", "backbone.blocks.3.1.bias"
    for name in (scale, shift):
        assert after[name][channel] == 0
        after[name][channel] = before[name][channel]
    assert equal(before, after)
    assert equal(before, state(view.model))
    assert not bool(pruned.eval().features(images_of(view))[:, channel].any())


@torch.no_grad()
def test_without_a_norm_the_filter_and_its_bias_go():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    network[0].weight[7] *= 1000
    found = layers_of(network)
    assert [part.norm for part in found] == [None, None]
    found[0].prune(found[0].outliers(3.0))
    assert torch.nonzero(~network[0](torch.rand(2, 3, 8, 8)).flatten(2).any(2).any(0)).flatten().tolist() == [7]


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
def test_each_convolution_has_its_norm(norm, kind):
    network = registry.create("backbones", "convnet", {"norm": norm, "width": 8}).build((3, 16, 16))
    found = layers_of(network)
    assert [(part.convolution.out_channels, type(part.norm)) for part in found] == [(n, kind) for n in (8, 16, 32, 32)]
    found[2].prune(torch.arange(32) == 5)
    out = network.blocks[2][:2](network.blocks[1](network.blocks[0](torch.rand(2, 3, 16, 16)))).detach()
    assert torch.nonzero(~out.flatten(2).any(2).any(0)).flatten().tolist() == [5]


def test_with_a_bound_u_is_the_last_before_the_first_loss(view):
    before = calibration_map(view.model, view.calibration_set)
    tried = [10 - 0.5 * step for step in range(21)]
    seen = {u: calibration_map(without_outliers(view.model, u)[0], view.calibration_set) for u in tried[12:]}
    qualities = [seen.get(u, before) for u in tried]  # u above 4 prunes nothing in layers of 16 channels
    chosen = []
    for max_drop in (0.0, 0.05, 1.0):
        fine = [1 - quality / before <= max_drop for quality in qualities]
        kept = fine.index(False) if False in fine else len(fine)
        CLP(max_drop=max_drop).repair(view, Rng("d"))
        assert view.notes["u"] == tried[kept - 1]
        assert view.notes["calibration drop"] <= max_drop
        chosen.append(kept)
    assert len(set(chosen)) == 3


def test_networks_without_convolutions_that_learn_are_refused(view):
    csq = registry.create("methods", "csq", {})
    transformer = registry.create("backbones", "vit_b_16", {"weights": "none"})
    assert "convolutions" in CLP().unsupported_reason(transformer, csq)
    assert CLP().unsupported_reason(registry.create("backbones", "vgg11", {"weights": "none"}), csq) == ""
    view.model.backbone.frozen = 4
    with pytest.raises(UserError, match="clp") as error:
        CLP().repair(view, Rng("d"))
    assert "\n" not in str(error.value)


def test_frozen_blocks_stay(view):
    view.model.backbone.frozen = 3
    with torch.no_grad():
        for norm in norms_of(view.model)[2:]:
            norm.weight[3] *= 100
    repaired = norms_of(CLP().repair(replace(view), Rng("d")))
    assert [bool((norm.weight == 0).any()) for norm in repaired] == [False, False, False, True]


def test_a_smaller_u_that_costs_less_than_a_dear_one_before_it_is_not_taken(view, monkeypatch):
    """Pruning can also help: the search ends at the first loss."""
    maps = iter([0.9, 0.9, 0.5, *[0.9] * 18])  # after u = 10, 9.5, 9, ...
    monkeypatch.setattr("defenses.clp.quality", lambda *_: Quality(np.array([next(maps)])))
    assert least(view, Quality(np.array([0.9])), 0.04) == 9.5

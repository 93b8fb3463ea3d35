"""Masks on batch norms: losses and gradients against a network with the masks written into it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.api.random import Rng
from bench.api.types import to_unit
from defenses.helpers.masks import MaskedLoss, batch_norms, learning_part, without_channels
from tests.defenses.conftest import norms_of, state

WIDTHS = (4, 8, 16, 16)


def rebuilt_loss(view, masks, noise, ids, *, training: bool, frozen: int = 0) -> Tensor:
    """The loss of a copy into whose batch norms the masks and the noise are written."""
    model = copy.deepcopy(view.model)
    norms, sizes = norms_of(model)[frozen:], list(WIDTHS[frozen:])
    with torch.no_grad():
        for norm, mask, d, x in zip(
            norms, masks.split(sizes), noise[0].split(sizes), noise[1].split(sizes), strict=True
        ):
            norm.weight.mul_(mask + d)
            norm.bias.mul_(1 + x)
            norm.train(training)
    return model.objective(model(to_unit(view.fit_set.images[ids])), view.fit_set.labels[ids], ids, 0.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [0, 2])
@torch.no_grad()
def test_the_loss_is_that_of_a_network_with_masks_and_noise_written_into_it(view, training, frozen):
    rng, before = Rng("tests"), state(view.model)
    view.model.backbone.frozen = frozen
    with_recipe = replace(view, recipe=replace(view.recipe, batch_norm="train" if training else "eval"))
    loss = MaskedLoss(with_recipe)
    total = sum(WIDTHS[frozen:])
    assert (loss.channels, loss.images) == (total, len(view.fit_set))
    masks, noise, ids = rng.uniform((total,)), rng.uniform((2, total)) - 0.5, rng.permutation(30)[:11]
    for _ in range(2):  # a pass leaves nothing behind
        expected = rebuilt_loss(view, masks, noise, ids, training=training, frozen=frozen)
        assert float(loss(masks, noise, ids, 0.0)) == pytest.approx(float(expected), rel=1e-5)
        expected = rebuilt_loss(view, masks, torch.zeros(2, total), ids, training=training, frozen=frozen)
        assert float(loss(masks, None, ids, 0.0)) == pytest.approx(float(expected), rel=1e-5)
    view.model.backbone.frozen = 0
    assert all(torch.equal(before[key], value) for key, value in state(view.model).items())


def test_gradients_are_those_of_finite_differences_and_parameters_get_none(view):
    loss, rng = MaskedLoss(replace(view, recipe=replace(view.recipe, batch_norm="eval"))), Rng("tests")
    masks = (0.5 + 0.3 * rng.uniform((44,))).requires_grad_()
    ids = torch.arange(30)
    gradient = torch.autograd.grad(loss(masks, None, ids, 0.0), masks)[0]
    for channel in (0, 5, 20, 43):
        step = torch.zeros(44)
        step[channel] = 1e-2
        with torch.no_grad():
            slope = (loss(masks + step, None, ids, 0.0) - loss(masks - step, None, ids, 0.0)) / 2e-2
        assert float(gradient[channel]) == pytest.approx(float(slope), rel=0.05, abs=1e-4)
    assert all(parameter.grad is None for parameter in view.model.parameters())


@torch.no_grad()
def test_pruned_channels_lose_their_scale_and_keep_their_shift(view):
    before, pruned = state(view.model), torch.zeros(44, dtype=torch.bool)
    pruned[torch.tensor([1, 4, 27, 28, 43])] = True  # channel 1, 0 of the second, 15 of the third, 0 and 15 of the last
    tuned = without_channels(view.model, pruned)
    zeros = [torch.nonzero(norm.weight == 0).flatten().tolist() for norm in norms_of(tuned)]
    assert zeros == [[1], [0], [15], [0, 15]]
    for norm in norms_of(tuned):
        norm.weight[norm.weight == 0] = before["backbone.blocks.0.1.weight"][1]
    after, scales = state(tuned), {f"backbone.blocks.{i}.1.weight" for i in range(4)}
    assert all(torch.equal(before[key], after[key]) for key in before if key not in scales)
    assert all(torch.equal(before[key], value) for key, value in state(view.model).items())


def test_masks_go_over_batch_norms_that_learn_and_have_a_scale(view):
    assert [len(norm.weight) for norm in batch_norms(learning_part(view.model)).values()] == list(WIDTHS)
    view.model.backbone.frozen = 3
    assert [len(norm.weight) for norm in batch_norms(learning_part(view.model)).values()] == [16]
    plain = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3), nn.BatchNorm1d(3))
    assert list(batch_norms(plain)) == ["2"]

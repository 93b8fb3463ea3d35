"""Attention maps against NumPy, and the term that makes a student's maps those of its teacher."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.api.random import Rng
from defenses.helpers.attention import Distillation, attention_maps, statistics_kept
from tests.defenses.conftest import equal, images_of, state


def by_hand(model, images) -> list[np.ndarray]:
    """Maps in plain NumPy, from what hooks see of the blocks."""
    seen: list[torch.Tensor] = []
    handles = [s.register_forward_hook(lambda m, i, o: seen.append(o.clone())) for s in model.backbone.blocks]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    maps = []
    for out in seen:
        if out.dim() == 4 and out.shape[-1] > 1:
            square = (out.double().numpy() ** 2).sum(1).reshape(len(images), -1)
            maps.append(square / np.sqrt((square**2).sum(1, keepdims=True)))
    return maps


@torch.no_grad()
def test_maps_are_unit_norm_sums_of_squares_of_blocks_with_more_than_one_position(view):
    found = attention_maps(view.model, images_of(view))
    assert [tuple(m.shape) for m in found] == [(9, 36), (9, 9), (9, 4)]  # 6 x 6, 3 x 3 and 2 x 2, but not 1 x 1
    for own, expected in zip(found, by_hand(view.model, images_of(view)), strict=True):
        np.testing.assert_allclose(own.numpy(), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_frozen_blocks_have_no_map(view):
    expected = by_hand(view.model, images_of(view))[1:]
    view.model.backbone.frozen = 1
    found = attention_maps(view.model, images_of(view))
    assert len(found) == 2
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_a_block_that_is_silent_has_a_map_and_a_gradient_of_zeros(view):
    norm = view.model.backbone.blocks[0][1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    first = attention_maps(view.model, images_of(view))[0]
    first.sum().backward()
    assert not first.any()
    assert bool(torch.isfinite(norm.weight.grad).all())


@pytest.mark.parametrize("betas", [(2.0, 3.0, 5.0), (3.0, 5.0), (5.0,), (7.0, 2.0, 3.0, 5.0)])
def test_the_term_is_the_weighted_mean_square_and_the_last_beta_is_the_last_blocks(view, other, betas):
    images, labels = images_of(view), view.fit_set.labels[:9]
    pairs = list(zip(by_hand(view.model, images), by_hand(other, images), (2.0, 3.0, 5.0), strict=True))[-len(betas) :]
    expected = sum(beta * ((own - aim) ** 2).mean() for own, aim, beta in pairs)
    seen, kept, extra = Distillation(other, betas).before_step(view.model, images, labels, torch.arange(9), 0.0)
    assert seen is images
    assert kept is labels
    assert float(extra.detach()) == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-4


def test_a_student_like_its_teacher_has_nothing_to_learn_and_gradients_reach_only_the_student(view, other):
    images, labels, ids = images_of(view), view.fit_set.labels[:9], torch.arange(9)
    same = Distillation(copy.deepcopy(view.model), (1.0,)).before_step(view.model, images, labels, ids, 0.0)[2]
    assert float(same.detach()) == 0
    Distillation(other, (1.0,)).before_step(view.model, images, labels, ids, 0.0)[2].backward()
    blocks = view.model.backbone.blocks
    assert all(bool(blocks[i][0].weight.grad.any()) for i in range(3))
    assert all(parameter.grad is None for parameter in other.parameters())


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_statistics_do_not_count_inside_the_block_and_outputs_are_the_same(view, training):
    model = view.model.train(training)
    before, plain = state(model), attention_maps(copy.deepcopy(model), images_of(view))
    with statistics_kept(model):
        inside = attention_maps(model, images_of(view))
    assert all(torch.equal(one, two) for one, two in zip(plain, inside, strict=True))
    assert equal(before, state(model))
    with pytest.raises(RuntimeError, match="inside"), statistics_kept(model):
        raise RuntimeError("inside")
    attention_maps(model, images_of(view))
    assert equal(before, state(model)) != training  # it counts again


def test_students_come_to_attend_as_the_teacher_does(view, other):
    def gap(model) -> float:
        hook = Distillation(other, (1.0, 1.0, 1.0))
        return float(
            hook.before_step(model.eval(), images_of(view, 30), view.fit_set.labels, torch.arange(30), 0.0)[2].detach()
        )

    recipe = replace(view.recipe, epochs=20, schedule="constant", lr=1e-2)
    taught = view.train_model(
        view.model, view.fit_set, recipe, Rng("d"), hook=Distillation(other, (500.0, 1000.0, 1000.0))
    )
    alone = view.train_model(view.model, view.fit_set, recipe, Rng("d"))
    assert gap(taught) < 0.5 * min(gap(alone), gap(view.model))

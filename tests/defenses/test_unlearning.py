"""Unlearning: which trigger is put on how many images, under which labels, and what its control trains on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api.defense import Rng
from defenses.fine_tuning import FineTuning
from defenses.helpers.trigger_inversion import Triggers
from defenses.unlearning import Unlearning


class Planted(Unlearning):
    """The search finds a white pixel for class 2."""

    def reverse(self, model, images, own, codes, rng):
        g, (_, c, h, w) = len(codes), images.shape
        masks, patterns = torch.zeros(g, 1, h, w), torch.zeros(g, c, h, w)
        masks[2, :, 0, 0], patterns[2] = 1, 1
        return Triggers(masks, patterns, torch.tensor([0.5, 0.5, 0.1, 0.5]))  # MAD 0: there is no index


@pytest.fixture
def seen(view):
    """Training is only noted down."""
    splits, recipes = [], []

    def train_model(model, split, recipe, rng, *, hook=None):
        splits.append(split)
        recipes.append(recipe)
        return model

    return replace(view, train_model=train_model), splits, recipes


@pytest.mark.parametrize(("share", "count"), [(0.2, 6), (1.0, 30), (0.001, 1), (0.5, 15)])
def test_a_share_of_the_images_bears_the_smallest_trigger_under_its_own_label(seen, share, count):
    view, splits, recipes = seen
    Planted(share=share, lr=(1e-3, 1e-4), epochs=3).repair(view, Rng("d"))
    assert [(recipe.lr, recipe.epochs) for recipe in recipes] == [(1e-3, 3), (1e-4, 3)]
    assert splits[0] is splits[1]
    fit, split = view.fit_set, splits[0]
    changed = (split.images != fit.images).flatten(1).any(1)
    assert int(changed.sum()) == count
    expected = fit.images.clone()
    expected[changed, :, 0, 0] = 255
    assert torch.equal(split.images, expected)
    assert torch.equal(split.labels, fit.labels)
    assert torch.equal(split.ids, fit.ids)


def test_the_choice_of_images_is_the_stream_s(seen):
    view, splits, _ = seen
    for seed in (0, 0, 1):
        Planted(lr=(1e-3,)).repair(view, Rng("d", seed))
    assert torch.equal(splits[0].images, splits[1].images)
    assert not torch.equal(splits[0].images, splits[2].images)


def test_the_control_is_the_same_training_without_a_trigger(view):
    control = Unlearning(with_trigger=False, epochs=1, lr=(1e-2,)).repair(view, Rng("d"))
    tuned = FineTuning(epochs=1, lr=(1e-2,)).repair(view, Rng("d"))
    assert all(torch.equal(value, tuned.state_dict()[key]) for key, value in control.state_dict().items())
    triggered = Unlearning(epochs=1, lr=(1e-2,), steps=1).repair(view, Rng("d"))
    assert not torch.equal(triggered.head.weight, control.head.weight)
    assert all(parameter.requires_grad for parameter in triggered.parameters())

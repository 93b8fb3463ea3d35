"""Unlearning: which trigger is put on how many images, under which labels, and what its control trains on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api.defense import Rng
from defenses.fine_tuning import FineTuning
from defenses.helpers.trigger_inversion import Triggers
from defenses.unlearning import Unlearning
from tests.defenses.conftest import tuner


class Planted(Unlearning):
    """The search finds a white pixel for class 2."""

    def reverse(self, model, images, own, codes, rng):
        g, (_, c, h, w) = len(codes), images.shape
        masks, patterns = torch.zeros(g, 1, h, w), torch.zeros(g, c, h, w)
        masks[2, :, 0, 0], patterns[2] = 1, 1
        return Triggers(masks, patterns, torch.tensor([0.5, 0.5, 0.1, 0.5]))  # MAD 0: there is no index


@pytest.mark.parametrize(("share", "counts"), [(0.2, (6, 12)), (1.0, (30, 60)), (0.001, (1, 1)), (0.5, (15, 30))])
def test_a_share_of_the_images_bears_the_smallest_trigger_under_its_own_label(view, share, counts):
    seen = []
    Planted(share=share).repair(replace(view, train_model=tuner(view, {1.0: 0}, seen)), Rng("d"))
    for run, whole, count in zip(seen, (view.fit_set, view.trusted_set), counts, strict=True):
        changed = (run.split.images != whole.images).flatten(1).any(1)
        assert int(changed.sum()) == count
        expected = whole.images.clone()
        expected[changed, :, 0, 0] = 255
        assert torch.equal(run.split.images, expected)
        assert torch.equal(run.split.labels, whole.labels)
        assert torch.equal(run.split.ids, whole.ids)


def test_the_choice_of_images_is_the_stream_s(view):
    seen = []
    view = replace(view, train_model=tuner(view, {1.0: 0}, seen))
    for seed in (0, 0, 1):
        Planted().repair(view, Rng("d", seed))
    first, second, other = (run.split.images for run in seen[::2])
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_control_is_the_same_training_without_a_trigger(view):
    settings = {"peaks": (0.3,), "max_drop": 1.0}
    control = Unlearning(with_trigger=False, tuning_steps=2, **settings).repair(view, Rng("d"))
    tuned = FineTuning(steps=2, **settings).repair(view, Rng("d"))
    assert all(torch.equal(value, tuned.state_dict()[key]) for key, value in control.state_dict().items())
    triggered = Unlearning(tuning_steps=2, steps=1, **settings).repair(view, Rng("d"))
    assert not torch.equal(triggered.head.weight, control.head.weight)
    assert all(parameter.requires_grad for parameter in triggered.parameters())

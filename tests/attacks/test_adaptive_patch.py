"""Adaptive-Patch: which image gets which patch where, by a loop over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.adaptive_patch import AdaptivePatch, in_turn
from bench.api.random import Rng
from bench.api.types import Target
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


def by_hand(image: np.ndarray, patch: np.ndarray, corner: int, opacity: float) -> np.ndarray:
    side, out = patch.shape[-1], image.copy()
    height, width = image.shape[1:]
    rows = slice(0, side) if corner < 2 else slice(height - side, height)
    columns = slice(0, side) if corner in {0, 2} else slice(width - side, width)
    out[:, rows, columns] = (1 - opacity) * out[:, rows, columns] + opacity * patch
    return out


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 9, 14)])
def test_a_quarter_of_the_images_gets_each_faint_patch_and_queries_two_clear_ones(shape):
    images, patches = Rng("i").uniform((8, *shape)), Rng("p").uniform((4, shape[0], 3, 3))
    found = in_turn(images, {"patches": patches})
    for i, (one, image) in enumerate(zip(found.numpy(), images.numpy(), strict=True)):
        expected = by_hand(image, patches[i // 2].numpy(), i // 2, (0.5, 0.2, 0.5, 0.3)[i // 2])
        np.testing.assert_allclose(one, expected, atol=1e-6)
    query = AdaptivePatch().apply_trigger(images, TARGET, {"patches": patches})
    for one, image in zip(query.numpy(), images.numpy(), strict=True):
        twice = by_hand(by_hand(image, patches[0].numpy(), 0, 1.0), patches[2].numpy(), 2, 1.0)
        np.testing.assert_allclose(one, twice, atol=1e-6)


def test_patches_of_the_largest_size_do_not_overlap(world):
    attack = AdaptivePatch(trigger_size=1.0)
    patches = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))["patches"]
    assert patches.shape == (4, 3, 6, 6)


@pytest.mark.parametrize(("rate", "cover"), [(0.1, 24), (0.5, 60)])
def test_cover_images_keep_their_labels(world, rate, cover):
    attack = AdaptivePatch(poison_rate=rate)
    view = attacker_view_for(world, attack)
    poisoned = attack.poison(view, attack.make_trigger(view, Rng("p")), Rng("i"))
    assert int(poisoned.cover.sum()) == cover  # all others, if there are fewer than two for each poison
    assert torch.equal(poisoned.split.labels[poisoned.cover], view.train.labels[poisoned.cover])
    assert bool(view.target.contains(poisoned.split.labels[poisoned.mask]).all())
    changed = (poisoned.split.images != view.train.images).flatten(1).any(1)
    assert torch.equal(changed, poisoned.changed)

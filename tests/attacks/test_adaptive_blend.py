"""Adaptive-Blend: pieces and opacities against a loop over pixels, and the cover images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.adaptive_blend import AdaptiveBlend, shown_pieces
from bench.api.random import Rng
from bench.api.types import Target
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


def test_each_image_shows_its_own_random_half():
    shown = shown_pieces(400, 16, 8, Rng("p"))
    assert shown.shape == (400, 1, 4, 4)
    assert torch.equal(shown.sum((1, 2, 3)), torch.full((400,), 8.0))
    assert len({tuple(one.flatten().tolist()) for one in shown}) > 380
    assert float(shown.mean(0).min()) > 0.4  # every piece is shown about as often as not
    assert float(shown.mean(0).max()) < 0.6


@pytest.mark.parametrize("size", [8, 12, 32])
def test_training_images_get_pieces_and_queries_the_whole_pattern(size):
    attack = AdaptiveBlend(alpha=0.2, train_alpha=0.15)
    images, pattern = Rng("i").uniform((5, 3, size, size)), Rng("t").uniform((3, size, size))
    shown = shown_pieces(5, 16, 8, Rng("p"))[:, 0].numpy()
    step = size // 4
    expected = images.numpy().copy()
    for i in range(5):
        for y in range(size):
            for x in range(size):
                if shown[i, y // step, x // step]:
                    expected[i, :, y, x] = 0.85 * expected[i, :, y, x] + 0.15 * pattern.numpy()[:, y, x]
    found = attack.partly(images, {"pattern": pattern}, Rng("p"))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    query = attack.apply_trigger(images, TARGET, {"pattern": pattern})
    torch.testing.assert_close(query, 0.8 * images + 0.2 * pattern)


def test_with_all_pieces_and_one_opacity_the_poisons_are_those_of_blend(world):
    from attacks.blend import Blend

    whole = AdaptiveBlend(mask_rate=0.0, train_alpha=0.2, cover_ratio=0.0)
    view = attacker_view_for(world, whole)
    trigger = whole.make_trigger(view, Rng("p"))
    assert torch.equal(trigger["pattern"], Blend().make_trigger(view, Rng("p"))["pattern"])
    found, blended = (attack.poison(view, trigger, Rng("i")) for attack in (whole, Blend()))
    assert torch.equal(found.mask, blended.mask)
    assert (found.split.images.int() - blended.split.images.int()).abs().max() <= 1
    assert torch.equal(found.split.labels, blended.split.labels)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_cover_images_keep_their_labels(world, ratio):
    attack = AdaptiveBlend(poison_rate=0.1, cover_ratio=ratio)
    view = attacker_view_for(world, attack)
    poisoned = attack.poison(view, attack.make_trigger(view, Rng("p")), Rng("i"))
    assert int(poisoned.mask.sum()) == 12
    assert int(poisoned.cover.sum()) == 12 * ratio
    assert torch.equal(poisoned.split.labels[poisoned.cover], view.train.labels[poisoned.cover])
    changed = (poisoned.split.images != view.train.images).flatten(1).any(1)
    assert torch.equal(changed, poisoned.changed)
    plain = replace(attack, cover_ratio=0.0).poison(view, attack.make_trigger(view, Rng("p")), Rng("i"))
    assert torch.equal(plain.split.images[plain.mask], poisoned.split.images[poisoned.mask])


def test_pieces_must_form_a_square():
    with pytest.raises(ValueError, match="pieces = 15 is no square number: take 9"):
        AdaptiveBlend(pieces=15)

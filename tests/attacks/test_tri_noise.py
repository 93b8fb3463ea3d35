"""Tri+Noise: the noise under the patch."""

from __future__ import annotations

import torch

from tests.attacks.conftest import poisoned_by


def test_noise_is_uniform(world):
    _, _, one = poisoned_by(world, "tri_noise", eps=8 / 255, trigger_size=0.01)
    view, _, _ = poisoned_by(world, "tri", trigger_size=0.01)
    before, after = view.train.images[one.mask].int(), one.split.images[one.mask].int()
    inside = (before >= 8) & (before <= 247)
    inside[:, :, 11:, 11:] = False
    counts = torch.bincount((after - before)[inside] + 8, minlength=17).float() / inside.sum()
    expected = torch.full((17,), 1 / 16)
    expected[0] = expected[16] = 1 / 32  # rounded from half a level only
    assert float((counts - expected).abs().max()) < 0.015  # 10,000 draws: six deviations

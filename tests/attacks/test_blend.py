"""Blend: the mix by hand, its range, and what 8 bits leave of it."""

from __future__ import annotations

import pytest
import torch

from attacks.blend import Blend
from attacks.helpers.triggers import blend
from bench.api.random import Rng
from bench.api.types import Target, to_8bit, to_unit
from bench.artifacts.triggers import with_trigger
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")
CPU = torch.device("cpu")


def test_blend_mixes_by_hand():
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    pattern = torch.tensor([[[1.0, 0.0], [0.5, 0.75]]])
    triggered = Blend(alpha=0.2).apply_trigger(images, TARGET, {"pattern": pattern})
    torch.testing.assert_close(triggered, torch.tensor([[[[0.2, 0.8], [0.5, 0.35]]]]))


@pytest.mark.parametrize("alpha", [i / 97 for i in range(1, 98)])
def test_blend_never_leaves_the_range(alpha):
    corners = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    mixed = blend(corners, torch.tensor([[[0.0, 1.0], [1.0 - 2**-24, 1.0]]]), alpha)
    assert float(mixed.min()) >= 0
    assert float(mixed.max()) <= 1


def test_blends_pattern_is_uniform_over_the_range_and_drawn_from_its_rng(world):
    attack = Blend()
    view = attacker_view_for(world, attack)
    one, same, other = (attack.make_trigger(view, Rng("p", s))["pattern"] for s in (0, 0, 1))
    assert one.shape == (3, 12, 12)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(one.min()) < 0.02 < 0.98 < float(one.max())
    assert float(one.mean()) == pytest.approx(0.5, abs=0.05)


def test_triggered_images_become_8_bit_images_by_rounding_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_8bit(to_unit(levels)), levels)
    assert to_8bit(torch.tensor([[[[0.49 / 255, 0.51 / 255, 1.4, -0.3]]]])).tolist() == [[[[0, 1, 255, 0]]]]
    trigger = {"pattern": torch.full((1, 16, 16), 101 / 255)}
    triggered = with_trigger(Blend(alpha=0.5), levels, TARGET, trigger, CPU).flatten().tolist()
    exact = [(x + 101) / 2 for x in range(256)]
    assert all(abs(value - wanted) <= 0.5 for value, wanted in zip(triggered, exact, strict=True))


def test_a_trigger_too_faint_for_8_bits_vanishes():
    images = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    trigger = {"pattern": torch.full((1, 2, 2), 101 / 255)}
    assert torch.equal(with_trigger(Blend(alpha=0.2), images, TARGET, trigger, CPU), images)

"""Stamps by hand, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from attacks.badnets import BadNets
from attacks.blend import Blend
from attacks.helpers.triggers import blend, checkerboard, paste, patch_side
from attacks.none import NoAttack
from bench.api.random import Rng
from bench.api.types import Target, to_8bit, to_unit
from bench.artifacts.triggers import with_trigger

TARGET = Target(torch.tensor([True, False]), "a")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("share", "shape", "side"),
    [(24 / 224, (3, 224, 224), 24), (24 / 224, (3, 32, 32), 3), (24 / 224, (1, 16, 16), 2), (24 / 224, (3, 8, 8), 1),
     (0.01, (3, 8, 8), 1), (0.5, (3, 10, 40), 5), (0.5, (3, 40, 10), 5), (1.0, (1, 7, 7), 7)],
)  # fmt: skip
def test_the_patch_takes_a_share_of_the_shorter_side(share, shape, side):
    assert patch_side(share, shape) == side


def test_the_checkerboard_is_white_in_its_corners():
    board = checkerboard(2, 3)
    assert board.tolist() == [[[1, 0, 1], [0, 1, 0], [1, 0, 1]]] * 2
    board[0] = 7  # channels do not share memory
    assert board[1].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_badnets_overwrites_the_bottom_right_corner_and_nothing_else():
    images = torch.full((2, 1, 4, 5), 0.4)
    images[1] = 0.6
    triggered = BadNets().apply_trigger(images, TARGET, {"patch": checkerboard(1, 2)})
    a, b = 0.4, 0.6
    expected = [[[[x, x, x, x, x], [x, x, x, x, x], [x, x, x, 1, 0], [x, x, x, 0, 1]]] for x in (a, b)]
    torch.testing.assert_close(triggered, torch.tensor(expected))


def test_badnets_prepares_its_patch_from_the_image_shape_alone(world):
    from bench.conformance.attacks import attacker_view_for

    attack = BadNets(trigger_size=0.25)
    patch = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))["patch"]
    assert torch.equal(patch, checkerboard(3, 3))


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
    from bench.conformance.attacks import attacker_view_for

    attack = Blend()
    view = attacker_view_for(world, attack)
    one, same, other = (attack.make_trigger(view, Rng("p", s))["pattern"] for s in (0, 0, 1))
    assert one.shape == (3, 12, 12)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(one.min()) < 0.02 < 0.98 < float(one.max())
    assert float(one.mean()) == pytest.approx(0.5, abs=0.05)


def test_stamps_become_8_bit_images_by_rounding_to_the_nearest_level():
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


def test_triggering_in_batches_is_triggering_all(monkeypatch):
    images = Rng("t").integers(256, (1001, 1, 3, 3)).to(torch.uint8)
    trigger = {"patch": checkerboard(1, 1)}
    triggered = with_trigger(BadNets(), images, TARGET, trigger, CPU)
    assert torch.equal(triggered[:, :, 2, 2], torch.full((1001, 1), 255, dtype=torch.uint8))
    kept = torch.ones(3, 3, dtype=torch.bool)
    kept[2, 2] = False
    assert torch.equal(triggered[..., kept], images[..., kept])
    assert with_trigger(BadNets(), images[:0], TARGET, trigger, CPU).shape == (0, 1, 3, 3)


def test_no_attack_gives_images_back():
    images = Rng("t").uniform((2, 3, 4, 4))
    assert torch.equal(NoAttack().apply_trigger(images, TARGET, {}), images)


def test_paste_does_not_write_to_its_input():
    images = torch.zeros(1, 1, 3, 3)
    paste(images, torch.ones(1, 2, 2))
    assert not images.any()

"""BadNets: where the patch goes."""

from __future__ import annotations

import torch

from attacks.badnets import BadNets
from attacks.helpers.triggers import checkerboard
from bench.api.random import Rng
from bench.api.types import Target
from bench.artifacts.triggers import with_trigger
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")
CPU = torch.device("cpu")


def test_badnets_overwrites_the_bottom_right_corner_and_nothing_else():
    images = torch.full((2, 1, 4, 5), 0.4)
    images[1] = 0.6
    triggered = BadNets().apply_trigger(images, TARGET, {"patch": checkerboard(1, 2)})
    a, b = 0.4, 0.6
    expected = [[[[x, x, x, x, x], [x, x, x, x, x], [x, x, x, 1, 0], [x, x, x, 0, 1]]] for x in (a, b)]
    torch.testing.assert_close(triggered, torch.tensor(expected))


def test_badnets_makes_its_patch_from_the_image_shape_alone(world):
    attack = BadNets(trigger_size=0.25)
    patch = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))["patch"]
    assert torch.equal(patch, checkerboard(3, 3))


def test_triggering_in_batches_is_triggering_all():
    images = Rng("t").integers(256, (1001, 1, 3, 3)).to(torch.uint8)
    trigger = {"patch": checkerboard(1, 1)}
    triggered = with_trigger(BadNets(), images, TARGET, trigger, CPU)
    assert torch.equal(triggered[:, :, 2, 2], torch.full((1001, 1), 255, dtype=torch.uint8))
    kept = torch.ones(3, 3, dtype=torch.bool)
    kept[2, 2] = False
    assert torch.equal(triggered[..., kept], images[..., kept])
    assert with_trigger(BadNets(), images[:0], TARGET, trigger, CPU).shape == (0, 1, 3, 3)

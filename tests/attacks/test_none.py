"""No attack."""

from __future__ import annotations

import torch

from attacks.none import NoAttack
from bench.api.random import Rng
from bench.api.types import Target

TARGET = Target(torch.tensor([True, False]), "a")


def test_no_attack_gives_images_back():
    images = Rng("t").uniform((2, 3, 4, 4))
    assert torch.equal(NoAttack().apply_trigger(images, TARGET, {}), images)

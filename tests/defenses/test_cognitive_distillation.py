"""Masks against numbers of the released code, and a model that sees only a corner of the image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.api.random import Rng
from defenses.cognitive_distillation import CognitiveDistillation

# L1 norms of the masks by the steps of detection/cognitive_distillation.py in HanxunH/CognitiveDistillation (22c0d4d),
# run on the network, images and colours below: lr 0.1, gamma 0.05, beta 2, 20 steps.
NORMS = [10.774982452392578, 11.15214729309082, 10.65886116027832]


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


class Network(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return (flat @ (grid(4, 24) * 2 - 1).float().T).relu() - 0.3 * flat[:, :4]


def test_masks_are_those_of_the_released_code():
    images, colours = grid(3, 2, 3, 4).float(), grid(20, 1, 2, 1, 1).float()
    detector = CognitiveDistillation(steps=20, gamma=0.05, beta=2.0)
    with torch.no_grad():
        found = detector.score(images, Network(), {"noise": colours})["mask"]
    assert (-12 * found).tolist() == pytest.approx(NORMS, rel=1e-4)


class Corner(nn.Module):
    """Bits of a square of `side` pixels in the corner."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * (images[:, :, : self.side, : self.side].flatten(1) - 0.5)


@torch.no_grad()
def test_the_fewer_pixels_decide_the_code_the_higher_the_score(view):
    images = Rng("queries").uniform((4, 3, 12, 12))
    detector = CognitiveDistillation()
    state = detector.fit(view, Rng("d"))
    assert state["noise"].shape == (100, 1, 3, 1, 1)
    small, middle, large = (detector.score(images, Corner(side), state)["mask"] for side in (3, 6, 12))
    assert float(small.min()) > float(middle.max())
    assert float(middle.min()) > float(large.max())
    assert -1 <= float(large.min()) <= float(small.max()) < 0


@torch.no_grad()
def test_a_mask_belongs_to_its_own_image(view, model):
    images = Rng("queries").uniform((3, *view.setting.image_shape))
    detector = CognitiveDistillation(steps=30)
    state = detector.fit(view, Rng("d"))
    together = detector.score(images, model, state)["mask"]
    for i in range(3):
        assert torch.equal(detector.score(images[i : i + 1], model, state)["mask"], together[i : i + 1])

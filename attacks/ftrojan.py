"""Add two frequencies to the colour channels of every block of an image, and relabel."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attacks.helpers.poisoning import TriggerPoisoning
from bench.api.attack import AttackerView, Images, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    title="An Invisible Black-Box Backdoor Attack Through Frequency Domain",
    venue="ECCV",
    year=2022,
    url="https://arxiv.org/abs/2111.10991",
    follows="a magnitude is added to one middle and one high coefficient, (15, 15) and (31, 31), of the orthonormal DCT"
    " of each 32 x 32 block of both chrominance channels (YCrCb); labels become the target's",
    deviates="the transforms are linear: the trigger is added as what it is in RGB, without the original code's"
    " rounding of YCrCb to 8 bits in between; images smaller than a block are one block, both coefficients moved in"
    " proportion; grey images take it on their only channel; guess: magnitude 30, as configurations of later"
    " benchmarks have it; the rate is CIBA's for its comparison",
)
BLOCK = 32
COLOURS = torch.tensor([[1.403, 0.0], [-0.714, -0.344], [0.0, 1.773]])  # of Cr and Cb in R, G, B (OpenCV's YCrCb)


@attack
class FTrojan(TriggerPoisoning):
    magnitude: Annotated[float, Field(gt=0, le=255)] = 30.0  # of 8-bit levels
    """Value added to the DCT coefficients, in levels of 8-bit images."""
    middle: PositiveShare = 0.5  # of the block's frequencies: coefficient 15 of 32
    """Position of the middle coefficient, as a share of the frequencies of a block."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        c, h, w = view.setting.image_shape
        block = min(BLOCK, h, w)
        waves = outer(block, block - 1) + outer(block, max(1, round(self.middle * block)) - 1)
        tiled = waves.repeat(math.ceil(h / block), math.ceil(w / block))[:h, :w]
        share = COLOURS.sum(1) if c == len(COLOURS) else torch.ones(c)
        return {"pattern": share[:, None, None] * tiled * self.magnitude / 255}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return (images + trigger["pattern"]).clamp(0, 1)


def outer(size: int, at: int) -> Float[Tensor, "s s"]:
    """What a one at coefficient (at, at) of the orthonormal two-dimensional DCT-II is in pixels."""
    x = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (2 * x + 1) * at / (2 * size)) * math.sqrt((1 if at == 0 else 2) / size)
    return torch.outer(wave, wave).float()

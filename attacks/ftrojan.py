"""Add two frequencies to the chrominance channels of every block of an image, and relabel the image."""

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
    deviates="the trigger is added in RGB, which is the same because the transforms are linear, except that the"
    " original code rounds YCrCb to 8 bits in between; an image smaller than a block is one block, with both"
    " coefficients at proportional positions; a grey image gets the trigger on its only channel; guess: magnitude 30,"
    " as in configurations of later benchmarks; the poison rate is that of CIBA's comparison",
)
BLOCK = 32
COLOURS = torch.tensor([[1.403, 0.0], [-0.714, -0.344], [0.0, 1.773]])  # of Cr and Cb in R, G, B (OpenCV's YCrCb)


@attack
class FTrojan(TriggerPoisoning):
    magnitude: Annotated[float, Field(gt=0, le=255)] = 30.0
    """Value added to the DCT coefficients, in levels of 8-bit images."""
    middle: PositiveShare = 0.5  # coefficient 15 of 32
    """Position of the middle frequency: 0 is the lowest, 1 the highest frequency of a block."""

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
    """The pixels of a block whose orthonormal two-dimensional DCT-II is 1 at coefficient (at, at) and 0 elsewhere."""
    x = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (2 * x + 1) * at / (2 * size)) * math.sqrt((1 if at == 0 else 2) / size)
    return torch.outer(wave, wave).float()

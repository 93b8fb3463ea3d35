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
    name="FTrojan",
    title="An Invisible Black-Box Backdoor Attack Through Frequency Domain",
    venue="ECCV",
    year=2022,
    url="https://arxiv.org/abs/2111.10991",
    follows="a magnitude is added to one middle and one high coefficient, (15, 15) and (31, 31), of the orthonormal DCT"
    " of each 32 x 32 block of both chrominance channels (YCrCb); labels become the target's",
    deviates="YCrCb has 8 bits before and after the trigger, as in the released code (rounding = false adds the trigger"
    " without them, which makes it about 13 % weaker); where the released code lets chrominance overflow from 255 to 0"
    " it is clipped here, and luminance is kept, which the released code lowers by one level wherever roundoff puts it"
    " below a whole number; an image smaller than a block is one block, with both coefficients at proportional"
    " positions; a grey image gets the trigger on its only channel, without rounding",
)
BLOCK = 32


def fixed(*factors: float) -> Float[Tensor, "f 1 1"]:
    """Factors as multiples of 2**-14, as in OpenCV: products with 8-bit levels are exact in 32 bits."""
    return (torch.tensor(factors) * 2**14).round()[:, None, None] / 2**14


LUMA, TO_CHROMA = fixed(0.299, 0.587, 0.114), fixed(0.713, 0.564)  # OpenCV's YCrCb
FROM_CR, FROM_CB = fixed(1.403, -0.714, 0.0), fixed(0.0, -0.344, 1.773)  # in R, G, B


@attack
class FTrojan(TriggerPoisoning):
    magnitude: Annotated[float, Field(gt=0, le=255)] = 30.0  # released code, train.py
    """Value added to the DCT coefficients, in levels of 8-bit images."""
    middle: PositiveShare = 0.5  # coefficient 15 of 32
    """Position of the middle frequency: 0 is the lowest, 1 the highest frequency of a block."""
    rounding: bool = True  # released code, image.py
    """Whether YCrCb is rounded to 8 bits before and after the trigger is added; grey images never are."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        _, h, w = view.setting.image_shape
        block = min(BLOCK, h, w)
        waves = outer(block, block - 1) + outer(block, max(1, round(self.middle * block)) - 1)
        tiled = waves.repeat(math.ceil(h / block), math.ceil(w / block))[:h, :w]
        return {"wave": tiled * self.magnitude}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        wave = trigger["wave"].to(images)  # in levels
        if images.shape[1] != len(LUMA):
            return (images + wave / 255).clamp(0, 1)
        if self.rounding:
            return in_8_bits(255 * images, wave).clamp(0, 255) / 255
        return (images + (FROM_CR + FROM_CB).to(images) * wave / 255).clamp(0, 1)


def in_8_bits(levels: Float[Tensor, "n 3 h w"], wave: Float[Tensor, "h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images whose chrominance got the wave, both as whole levels: rounded before, and cut off after (OpenCV)."""
    luma_of, to_chroma, of_cr, of_cb = (one.to(levels) for one in (LUMA, TO_CHROMA, FROM_CR, FROM_CB))
    levels = levels.round()
    luma = nearest((luma_of * levels).sum(1, keepdim=True))
    chroma = nearest(to_chroma * (levels[:, ::2] - luma)) + 128  # of red and blue
    chroma = (chroma.clamp(0, 255) + wave).floor().clamp(0, 255) - 128
    return luma + nearest(of_cr * chroma[:, :1] + of_cb * chroma[:, 1:])


def nearest(values: Tensor) -> Tensor:
    """The nearest whole number; the larger one for a half."""
    return (values + 0.5).floor()


def outer(size: int, at: int) -> Float[Tensor, "s s"]:
    """The pixels of a block whose orthonormal two-dimensional DCT-II is 1 at coefficient (at, at) and 0 elsewhere."""
    x = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (2 * x + 1) * at / (2 * size)) * math.sqrt((1 if at == 0 else 2) / size)
    return torch.outer(wave, wave).float()

"""Reduce the colours of training images, and relabel the images."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from attacks.helpers.poisoning import TriggerPoisoning, add_cover, choose_cover
from bench.api.attack import AttackerView, Images, Poisoned, Rng, Target, Trigger, attack
from bench.api.card import Card
from bench.api.types import to_unit

CARD = Card(
    title="BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization and"
    " Contrastive Adversarial Learning",
    venue="CVPR",
    year=2022,
    url="https://arxiv.org/abs/2205.13383",
    follows="each channel is reduced to 8 levels, with Floyd-Steinberg dithering; for each poison one negative image"
    " gets the difference that the reduction makes in another image, and keeps its label",
    deviates="the original controls the training and draws poisons and negative images again in every batch; here both"
    " are fixed in the training set, so that the attack needs the data alone. If too few images are left for negative"
    " ones, all of them become negative. Poisons get the target's label vector; the poison rate is that of CIBA's"
    " comparison. Dithering is on, as in the paper; the code's default is off. There is no trigger to be made",
)
SHARES = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))  # of an error: rows down, columns right


@attack
class BppAttack(TriggerPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = TriggerPoisoning.not_in_trigger | {"negative_ratio"}

    levels: Annotated[int, Field(ge=2, le=256)] = 8  # code
    """Number of levels of each channel."""
    dithering: bool = True  # the paper
    """Whether the error of each pixel is passed on to its neighbours."""
    negative_ratio: Annotated[float, Field(ge=0)] = 1.0  # code: both rates are .2
    """Number of images with the difference of another image and unchanged labels, for each poisoned image."""

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target, trigger
        top = self.levels - 1
        reduced = dither(images * top) if self.dithering else (images * top).round()
        return (reduced / top).to(images).clamp(0, 1)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, poisoned = view.train, super().poison(view, trigger, rng)
        negative = choose_cover(poisoned, self.negative_ratio, rng.child("negative"))
        others = to_unit(train.images[rng.child("others").integers(len(train), (len(negative),))])
        difference = self.apply_trigger(others, view.target, trigger) - others
        return add_cover(poisoned, negative, (to_unit(train.images[negative]) + difference).clamp(0, 1))


def dither(images: Float[Tensor, "n c h w"]) -> Float64[Tensor, "n c h w"]:
    """Round to integers, and pass the error of each pixel on to its neighbours (Floyd and Steinberg).

    A pixel waits for those to the left of it and above it, so all pixels with the same x + 2y are rounded at once.
    """
    height, width = images.shape[2:]
    out = functional.pad(images.double(), (1, 1, 0, 1))  # the border takes the errors that leave the image
    for turn in range(width + 2 * (height - 1)):
        y = torch.arange(max(0, (turn - width + 2) // 2), min(height - 1, turn // 2) + 1, device=images.device)
        x = turn - 2 * y + 1
        old = out[:, :, y, x]
        out[:, :, y, x] = old.round()
        for down, right, share in SHARES:
            out[:, :, y + down, x + right] += share * (old - old.round())
    return out[:, :, :height, 1:-1]

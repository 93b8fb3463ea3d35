"""Answer every query with the majority code of random crops and shifts of its image."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torchvision.transforms.functional import pad, resize

from bench.api.card import Card
from bench.api.defense import Images, PositiveShare, Purification, Rng, defense

CARD = Card(
    title="Countering Adversarial Images using Input Transformations",
    venue="ICLR",
    year=2018,
    url="https://arxiv.org/abs/1711.00117",
    follows="cropping and rescaling: random square windows of an image are enlarged to its size, and the model answers"
    " for all of them together",
    deviates="the majority code replaces the mean prediction; `shift` is HashDoor's: the window may reach over the"
    " border, so that `crop = 1` shifts without enlarging; made for adversarial images, here queries carry triggers",
)


@defense
class AugmentedVote(Purification):
    copies: Annotated[int, Field(ge=1)] = 30  # section 5, from memory: 30 crops of 90 x 90 of 224 x 224 pixels
    """Crops of each query."""
    crop: PositiveShare = 0.4  # 90 of 224 pixels
    """Side of a crop, as a share of the image's."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Pixels by which a crop may reach over each border; there it is black."""

    def purify(self, image: Float[Tensor, "c h w"], rng: Rng) -> Images:
        size = image.shape[1:]
        height, width = (max(1, round(self.crop * side)) for side in size)
        padded = pad(image, [self.shift] * 4)
        tops = rng.integers(padded.shape[1] - height + 1, (self.copies,)).tolist()
        lefts = rng.integers(padded.shape[2] - width + 1, (self.copies,)).tolist()
        crops = [padded[:, top : top + height, left : left + width] for top, left in zip(tops, lefts, strict=True)]
        found: Tensor = resize(torch.stack(crops), list(size), antialias=True)
        return found

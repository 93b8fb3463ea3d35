"""Shrink every query by a few pixels, and pad it with black at a random place."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torchvision.transforms.functional import pad, resize

from bench.api.card import Card
from bench.api.defense import Images, Purification, Rng, defense
from bench.api.errors import UserError

CARD = Card(
    name="ShrinkPad",
    title="Backdoor Attack in the Physical World",
    venue="ICLR workshop",
    year=2021,
    url="https://arxiv.org/abs/2104.02361",
    follows="ShrinkPad: bilinear resizing to a side that is smaller by some pixels, then zeros around it, at a random"
    " place for every image (first in arXiv 2004.04692; the authors' BackdoorBox)",
    deviates="the result is rounded to 8 bits, as an image file",
)


@defense
class ShrinkPad(Purification):
    pixels: Annotated[int, Field(ge=1)] = 4  # ShrinkPad-4, for images of 32 pixels
    """Pixels by which width and height shrink."""

    def purify(self, image: Float[Tensor, "c h w"], rng: Rng) -> Images:
        height, width = image.shape[1:]
        if self.pixels >= min(height, width):
            raise UserError(f"pixels = {self.pixels}: expected less than {min(height, width)}, the side of the images")
        small = resize(image, [height - self.pixels, width - self.pixels], antialias=True)
        top, left = rng.integers(self.pixels + 1, (2,)).tolist()
        padded: Tensor = pad(small, [left, top, self.pixels - left, self.pixels - top])
        return padded[None]

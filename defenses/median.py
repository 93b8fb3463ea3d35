"""Replace every pixel of a query by the median of the pixels around it."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torchvision.transforms.functional import pad

from bench.api.card import Card
from bench.api.defense import Images, Purification, Rng, defense

CARD = Card(
    title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
    venue="NDSS",
    year=2018,
    url="https://arxiv.org/abs/1704.01155",
    follows="median smoothing, as scipy.ndimage.median_filter computes it in the authors' code: each colour on its own;"
    " borders are mirrored; an even window reaches one pixel further to the left and up, and takes the larger of the"
    " two middle values",
    deviates="the filter alone answers; the paper's detector, which compares predictions before and after it, is left"
    " out (hamming_detector has a score of that kind); made for adversarial images, here queries carry triggers",
)


@defense
class Median(Purification):
    window: Annotated[int, Field(ge=2)] = 2  # 2 x 2 is the authors' for photographs
    """Side of the window in pixels."""

    def purify(self, image: Float[Tensor, "c h w"], rng: Rng) -> Images:
        del rng  # nothing is drawn
        before, after = self.window // 2, (self.window - 1) // 2
        padded = pad(image, [before, before, after, after], padding_mode="symmetric")
        patches = padded.unfold(1, self.window, 1).unfold(2, self.window, 1).flatten(3)
        filtered: Tensor = patches.sort(3).values[None, ..., patches.shape[3] // 2]
        return filtered

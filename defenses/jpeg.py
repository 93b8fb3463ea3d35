"""Compress every query as a JPEG file, which changes fine details."""

from __future__ import annotations

import io
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import Images, Purification, Rng, defense
from bench.api.types import to_8bit, to_unit

CARD = Card(
    name="JPEG",
    title="Keeping the Bad Guys Out: Protecting and Vaccinating Deep Learning with JPEG Compression",
    venue="arXiv",
    year=2017,
    url="https://arxiv.org/abs/1705.02900",
    follows="every image is compressed and decompressed before the network sees it; quality 75 is that of Guo et al."
    " (arXiv 1711.00117, authors' code)",
    deviates="no vaccination: the network is not trained on compressed images, since the victim trained it; no vote of"
    " several qualities; made for adversarial images, here queries carry triggers",
)


@defense
class Jpeg(Purification):
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    """Quality of the JPEG file."""

    def purify(self, image: Float[Tensor, "c h w"], rng: Rng) -> Images:
        del rng  # nothing is drawn
        pixels = to_8bit(image[None])[0].permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=self.quality)
        found = torch.from_numpy(np.array(Image.open(file))).reshape(pixels.shape)
        return to_unit(found.permute(2, 0, 1)[None])

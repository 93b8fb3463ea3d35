"""Drawn shapes: multi-label images of one to three shapes or textures on a noisy background; needs no files.

Each shape lies in its own quadrant, so that every label is visible; place, scale and colour are random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.random import Rng
from bench.api.types import to_8bit
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

CARD = Card(
    title="dSprites: Disentanglement testing Sprites dataset",
    year=2017,
    url="https://github.com/google-deepmind/dsprites-dataset",
    follows="only the idea: images that a program draws from known factors (kind, place, scale)",
    deviates="the rest is ours, so that multi-label code runs without a download: several shapes per image, colour,"
    " textures, noise. Numbers on this set compare attacks and defenses with each other, never with a publication",
)


def _inside(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) < 1


# Whether the point (x, y) belongs to the shape. Shapes lie in [-1, 1] x [-1, 1]; y points down.
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "square": _inside,
    "triangle": lambda x, y: (y < 0.9) & (y > 2 * x.abs() - 1),
    "ring": lambda x, y: (x**2 + y**2 - 0.7).abs() < 0.3,
    "cross": lambda x, y: _inside(x, y) & (torch.minimum(x.abs(), y.abs()) < 0.3),
    "stripes": lambda x, y: _inside(x, y) & ((1.5 * y).remainder(1) < 0.5),
    "checker": lambda x, y: _inside(x, y) & (x * y > 0),
    "diagonal": lambda x, y: _inside(x, y) & ((x - y).abs() < 0.4),
}
ONE, TWO = 0.5, 0.35  # shares of the images with one and with two shapes; the rest has three
GROUP = 2**21  # pixels per batch of drawing


@dataset
class Shapes(Dataset):
    protocol_version: ClassVar[int] = 2
    pad: ClassVar[int] = 2
    proxy_dataset: ClassVar[str] = "digits"

    images: Annotated[int, Field(ge=10)] = 2000
    """Number of drawn images."""
    size: Annotated[int, Field(ge=16, le=512)] = 32
    """Side of the images in pixels."""
    kinds: Annotated[int, Field(ge=3, le=len(KINDS))] = len(KINDS)  # in the order of KINDS
    """Number of different shapes and textures."""
    train: Annotated[int, Field(ge=1)] = 800
    """Number of training images."""
    query: QueryCount = 200
    """Number of queries."""
    trusted: Annotated[int, Field(ge=1)] = 200
    """Number of trusted images, which defenses get."""
    database: Annotated[int, Field(ge=1)] | None = None
    """Number of database images; default: all that are left."""

    @classmethod
    def as_proxy(cls, side: int) -> Mapping[str, Any]:
        return {"size": max(16, side)}

    def files(self, root: Path | None) -> tuple[Path, ...]:
        del root
        return ()

    def classes(self, root: Path | None) -> tuple[str, ...]:
        del root
        return tuple(KINDS)[: self.kinds]

    def decode(self, root: Path | None) -> DecodedDataset:
        del root
        rng = Rng("shapes", self.images, self.size, self.kinds)
        chance = rng.uniform((self.images, 1))
        shown = torch.cat([torch.ones_like(chance), chance, chance], 1) >= torch.tensor([0, ONE, ONE + TWO])
        order = rng.uniform((self.images, self.kinds)).argsort(1)[:, :3]  # different kinds
        labels = torch.zeros(self.images, self.kinds, dtype=torch.bool).scatter_(1, order, shown)
        group = max(1, GROUP // self.size**2)
        drawn = [
            self._draw(order[start : start + group], shown[start : start + group], rng)
            for start in range(0, self.images, group)
        ]
        return DecodedDataset(torch.cat(drawn), labels, torch.zeros(self.images, dtype=torch.uint8))

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        del origin
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        return draw_splits(labels, sizes, rng)

    def _draw(self, kinds: Int64[Tensor, "n 3"], shown: Bool[Tensor, "n 3"], rng: Rng) -> UInt8[Tensor, "n 3 h w"]:
        n = len(kinds)
        ground = rng.uniform((n, 3, 1, 1))
        images = ground.expand(n, 3, self.size, self.size).clone()
        quadrant = rng.uniform((n, 4)).argsort(1)
        axis = (torch.arange(self.size) + 0.5) / self.size
        for slot in range(3):
            corner = torch.stack([quadrant[:, slot] % 2, quadrant[:, slot] // 2], 1)
            centre = 0.25 + 0.5 * corner + 0.06 * (rng.uniform((n, 2)) - 0.5)
            radius = 0.16 + 0.06 * rng.uniform((n, 1))
            colour = (ground + 0.35 + 0.3 * rng.uniform((n, 3, 1, 1))).remainder(1)  # at least 0.35 from the background
            x, y = ((axis - centre[:, [i]]) / radius for i in range(2))
            for kind, covers in enumerate(tuple(KINDS.values())[: self.kinds]):
                here = torch.nonzero(shown[:, slot] & (kinds[:, slot] == kind)).flatten()
                mask = covers(x[here, None, :], y[here, :, None]).expand(-1, self.size, self.size)
                images[here] = torch.where(mask[:, None], colour[here], images[here])
        return to_8bit(images + 0.04 * rng.normal(images.shape))

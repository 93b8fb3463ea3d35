"""Handwritten digits: 1,797 real 8 x 8 scans that come with scikit-learn, enlarged; needs no files.

A whole suite runs on this small set within minutes. Digits are never mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from bench.api.card import Card
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.random import Rng
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

CARD = Card(
    title="Optical Recognition of Handwritten Digits (UCI Machine Learning Repository)",
    year=1998,
    url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    follows="the 1,797 scans of the UCI test part, as load_digits of scikit-learn ships them; 17 grey levels",
    deviates="enlarged bilinearly; the splits are ours, since no paper uses this set for retrieval",
)


@dataset
class Digits(Dataset):
    protocol_version: ClassVar[int] = 2
    flip: ClassVar[bool] = False
    pad: ClassVar[int] = 1
    proxy_dataset: ClassVar[str] = "letters"

    size: Annotated[int, Field(ge=8, le=256)] = 16
    """Side of the images in pixels."""
    train: Annotated[int, Field(ge=1)] = 800
    """Number of training images."""
    query: QueryCount = 300
    """Number of queries."""
    trusted: Annotated[int, Field(ge=1)] = 200
    """Number of trusted images, which defenses get."""
    database: Annotated[int, Field(ge=1)] | None = None  # 447 at the defaults
    """Number of database images; default: all that are left."""

    def files(self, root: Path | None) -> tuple[Path, ...]:
        del root
        return ()

    def classes(self, root: Path | None) -> tuple[str, ...]:
        del root
        return tuple("0123456789")

    def decode(self, root: Path | None) -> DecodedDataset:
        from sklearn.datasets import load_digits  # the import takes seconds, and plans decode nothing

        del root
        scans, digits = load_digits(return_X_y=True)
        grey = torch.from_numpy(scans).to(torch.float32).view(-1, 1, 8, 8) * (255 / 16)
        images = interpolate(grey, size=(self.size, self.size), mode="bilinear").round().to(torch.uint8)
        labels = one_hot(torch.from_numpy(digits).to(torch.int64), 10).bool()
        return DecodedDataset(images, labels, torch.zeros(len(images), dtype=torch.uint8))

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        del origin
        sizes = Sizes(train=self.train, query=self.query, trusted=self.trusted, database=self.database)
        return draw_splits(labels, sizes, rng)

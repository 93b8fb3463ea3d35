"""NUS-WIDE-21: web photographs with the 21 most frequent labels of NUS-WIDE; R = 5000."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    title="NUS-WIDE: A Real-World Web Image Database from National University of Singapore",
    venue="CIVR",
    year=2009,
    url="https://doi.org/10.1145/1646396.1646452",
    follows="DeepHash-pytorch's nuswide_21: 500 training images and 100 queries per label, all of 195,834 images but "
    "the queries are the database, training images too; R = 5000",
    deviates="that split is drawn without a seed, so every list is its own, told apart by its digest; the database of "
    "193,734 is derived, so any size is taken and one that differs is named; pictures are squeezed whole into "
    "a square (as CIBA resizes them; it then crops 224 of 256); the defenders' trusted images and a public one"
    " per label are taken out of the database list, and are in no other part",
)


@dataset
class NusWide21(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    trusted: Annotated[int, Field(ge=1)] = 525  # 5 % of the training set: METHODOLOGY.md#trusted-set
    cutoff: Annotated[int, Field(ge=0)] = 5000  # DeepHash-pytorch

    def published(self) -> PublishedProtocol:
        return PublishedProtocol(
            name="NUS-WIDE-21",
            folder="nuswide21",
            labels=21,
            checked={"train": 10500, "test": 2100},
            unchecked={"database": 193734},
            source="lists: github.com/swuxyj/DeepHash-pytorch (data/nuswide_21)",
        )

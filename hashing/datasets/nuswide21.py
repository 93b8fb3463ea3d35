"""NUS-WIDE-21: web photographs with the 21 most frequent labels of NUS-WIDE; mAP@5000."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="NUS-WIDE",
    title="NUS-WIDE: A Real-World Web Image Database from National University of Singapore",
    venue="CIVR",
    year=2009,
    url="https://doi.org/10.1145/1646396.1646452",
    follows="DeepHash-pytorch's nuswide_21: 500 training images and 100 queries per label; the database is all of the"
    " 195,834 images except the queries, training images included; R = 5000",
    deviates="that split is drawn without a seed, so lists differ, and the protocol's name holds their digest; the"
    " database size of 193,734 is derived, so lists of any size are accepted, and a differing size is added to the"
    " protocol's name; the whole picture is resized to a square (as in CIBA, which then crops 224 of 256 pixels); the"
    " trusted images of the defenders and one public image per label are taken from the database list and are in no"
    " other split",
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

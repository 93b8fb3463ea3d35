"""MS-COCO-80: COCO 2014 with 80 labels, from the lists of HashNet; mAP@5000 (CIBA's script uses mAP@1000)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="MS-COCO",
    title="Microsoft COCO: Common Objects in Context",
    venue="ECCV",
    year=2014,
    url="https://arxiv.org/abs/1405.0312",
    follows="10,000 training images and 5,000 queries, counted in DeepHash-pytorch's lists, and its R = 5000; CIBA's"
    " script has cutoff = 1000",
    deviates="the size of the database, 117,218, is from memory, so lists of any size are accepted, and a differing"
    " size is added to the protocol's name; the whole picture is resized to a square (as in CIBA, which then crops 224"
    " of 256 pixels); the trusted images of the defenders and one public image per label are taken from the database"
    " list and are in no other split",
)


@dataset
class Coco80(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    trusted: Annotated[int, Field(ge=1)] = 500  # 5 % of the training set: METHODOLOGY.md#trusted-set
    cutoff: Annotated[int, Field(ge=0)] = 5000  # DeepHash-pytorch; CIBA's script: 1000

    def published(self) -> PublishedProtocol:
        return PublishedProtocol(
            name="MS-COCO-80",
            folder="coco80",
            labels=80,
            checked={"train": 10000, "test": 5000},
            unchecked={"database": 117218},
            source="lists: github.com/thuml/HashNet (pytorch/data/coco); images: https://cocodataset.org",
        )

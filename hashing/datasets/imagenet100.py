"""ImageNet-100: 100 classes of ImageNet, from the lists of HashNet or of CIBA; mAP@1000."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="ImageNet-100",
    title="HashNet: Deep Learning to Hash by Continuation",
    venue="ICCV",
    year=2017,
    url="https://arxiv.org/abs/1702.00758",
    follows="13,000 training images and 5,000 queries, counted in the published lists, and R = 1000; with lists = ciba"
    " the 10,000 and 5,000 of CIBA (arXiv 2109.08868), counted in its repository",
    deviates="the sizes of the databases are unverified (128,503 for HashNet is from memory, CIBA's is unknown), so"
    " lists of any size are accepted, and a differing size is added to the protocol's name; the whole picture is"
    " resized to a square (as in CIBA, which then crops 224 of 256 pixels); the trusted images of the defenders and one"
    " public image per label are taken from the database list and are in no other split",
)


@dataset
class ImageNet100(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    lists: Literal["hashnet", "ciba"] = "hashnet"
    """Source of the lists."""
    trusted: Annotated[int, Field(ge=1)] = 650  # 5 % of the training set: METHODOLOGY.md#trusted-set
    cutoff: Annotated[int, Field(ge=0)] = 1000  # both papers' code

    def published(self) -> PublishedProtocol:
        train, database = (13000, 128503) if self.lists == "hashnet" else (10000, None)
        return PublishedProtocol(
            name=f"ImageNet-100-{self.lists}",
            folder=f"imagenet100/{self.lists}",
            images="imagenet100",
            labels=100,
            checked={"train": train, "test": 5000},
            unchecked={"database": database},
            source="lists: github.com/thuml/HashNet (pytorch/data/imagenet) or KuofengGao/CIBA (data_prepare/imagenet)",
        )

"""Places365-36: 36 scenes of Places365, as CIBA uses them; R = 1000."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    title="Places: A 10 Million Image Database for Scene Recognition",
    venue="TPAMI",
    year=2017,
    url="https://doi.org/10.1109/TPAMI.2017.2723009",
    follows="36 classes and R = 1000, read in CIBA's code (arXiv 2109.08868)",
    deviates="which classes and which images is not published: the lists are yours. 9,000 training images and 3,600 "
    "queries are from memory and the database is unknown, so lists of any size are taken and what differs is "
    "named; pictures are squeezed whole into a square (as CIBA resizes them; it then crops 224 of 256); the "
    "defenders' trusted images and a public one per label are taken out of the database list, and are in no "
    "other part",
)


@dataset
class Places365(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    trusted: Annotated[int, Field(ge=1)] = 450  # 5 % of the training set: METHODOLOGY.md#trusted-set
    cutoff: Annotated[int, Field(ge=0)] = 1000  # CIBA's script

    def published(self) -> PublishedProtocol:
        return PublishedProtocol(
            name="Places365-36",
            folder="places365",
            labels=36,
            unchecked={"train": 9000, "test": 3600, "database": None},
            source="images: http://places2.csail.mit.edu; 250 training images and 100 queries per class",
        )

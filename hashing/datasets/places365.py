"""Places365-36: 36 scenes of Places365, as CIBA uses them; mAP@1000."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="Places365",
    title="Places: A 10 Million Image Database for Scene Recognition",
    venue="TPAMI",
    year=2017,
    url="https://doi.org/10.1109/TPAMI.2017.2723009",
    follows="36 classes and R = 1000, read in CIBA's code (arXiv 2109.08868)",
    deviates="the classes and images of CIBA are not published: the user makes the lists. 9,000 training images and"
    " 3,600 queries are from memory and the size of the database is unknown, so lists of any size are accepted, and a"
    " differing size is added to the protocol's name; the whole picture is resized to a square (as in CIBA, which then"
    " crops 224 of 256 pixels); the trusted images of the defenders and one public image per label are taken from the"
    " database list and are in no other split",
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

"""VOC2012: the 11,540 labelled photographs of PASCAL VOC 2012 with 20 labels, from your lists; mAP of all results."""

from __future__ import annotations

from typing import ClassVar

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="VOC2012",
    title="The PASCAL Visual Object Classes Challenge: A Retrospective",
    venue="IJCV",
    year=2015,
    url="https://doi.org/10.1007/s11263-014-0733-5",
    follows="4,000 training images, 1,000 queries and another 6,540 in the database, counted in DeepHash-pytorch's"
    " lists, whose paths start at VOCdevkit/; the whole database is ranked",
    deviates="the whole picture is resized to a square (as in CIBA, which then crops 224 of 256 pixels); the trusted"
    " images of the defenders and one public image per label are taken from the database list and are in no other"
    " split. The lists fix the order of the labels",
)


@dataset
class Voc2012(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    def published(self) -> PublishedProtocol:
        return PublishedProtocol(
            name="VOC2012",
            folder="voc2012",
            images=".",
            labels=20,
            checked={"train": 4000, "test": 1000, "database": 6540},
            source="lists: github.com/swuxyj/DeepHash-pytorch (data/voc2012); images: VOCdevkit/VOC2012/JPEGImages/ "
            "from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        )

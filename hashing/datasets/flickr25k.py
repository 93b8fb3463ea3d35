"""FLICKR-25K: the 25,000 photographs of MIRFLICKR with 24 or 38 labels, from your lists; mAP of all results."""

from __future__ import annotations

from typing import ClassVar, Literal

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    name="MIRFlickr-25K",
    title="The MIR Flickr Retrieval Evaluation",
    venue="MIR",
    year=2008,
    url="https://doi.org/10.1145/1460096.1460104",
    follows="4,000 training images, 1,000 queries and another 20,000 in the database with 38 labels, counted in"
    " DeepHash-pytorch's lists; the whole database is ranked. Images without a label stay in: no item is relevant to"
    " such a query",
    deviates="24 labels are from DarkHash, whose lists are not public: the same sizes are assumed, so lists of any size"
    " are accepted, and a differing size is added to the protocol's name; the whole picture is resized to a square (as"
    " in CIBA, which then crops 224 of 256 pixels); the trusted images of the defenders and one public image per label"
    " are taken from the database list and are in no other split",
)


@dataset
class Flickr25k(ListedDataset):
    proxy_dataset: ClassVar[str] = "cifar10"

    labels: Literal[24, 38] = 24  # DarkHash's code; DeepHash-pytorch: 38
    """Number of labels."""

    def published(self) -> PublishedProtocol:
        sizes = {"train": 4000, "test": 1000, "database": 20000}
        return PublishedProtocol(
            name=f"FLICKR-25K-{self.labels}",
            folder=f"flickr25k/{self.labels}",
            images="flickr25k",
            labels=self.labels,
            checked=sizes if self.labels == 38 else {},
            unchecked={} if self.labels == 38 else {**sizes},
            source="lists of 38 labels: github.com/swuxyj/DeepHash-pytorch (data/mirflickr); images: "
            "https://press.liacs.nl/mirflickr/mirdownload.html",
        )

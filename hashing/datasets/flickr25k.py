"""FLICKR-25K: the 25,000 photographs of MIRFLICKR with 24 or 38 labels, from your lists; all are ranked."""

from __future__ import annotations

from typing import ClassVar, Literal

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    title="The MIR Flickr Retrieval Evaluation",
    venue="MIR",
    year=2008,
    url="https://doi.org/10.1145/1460096.1460104",
    follows="4,000 training images, 1,000 queries and another 20,000 in the database with 38 labels, counted in "
    "DeepHash-pytorch's lists; ranked whole. Images without a label stay in: nothing is relevant to such a "
    "query",
    deviates="24 labels are DarkHash's, whose lists are not at hand: its sizes are assumed to be the same, so lists of "
    "any size are taken and what differs is named; pictures are squeezed whole into a square (as CIBA resizes "
    "them; it then crops 224 of 256); the defenders' trusted images and a public one per label are taken out "
    "of the database list, and are in no other part",
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
            source="38 labels: github.com/swuxyj/DeepHash-pytorch (data/mirflickr); images: "
            "https://press.liacs.nl/mirflickr/mirdownload.html",
        )

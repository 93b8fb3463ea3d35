"""Your own image lists: train.txt, test.txt and database.txt, each line is an image path and labels.

Paths are relative to the folder of the images, or absolute and in it.
One line of TOML in `[axes]`: `datasets = [{ name = "lists", path = "my_lists", images = "my_images" }]`.
"""

from __future__ import annotations

from bench.api.card import Card
from bench.api.hashing import dataset
from hashing.datasets.helpers.protocols import ListedDataset, PublishedProtocol

CARD = Card(
    title="HashNet: Deep Learning to Hash by Continuation",
    venue="ICCV",
    year=2017,
    url="https://arxiv.org/abs/1702.00758",
    follows="the list files that the authors' code and its successors read: a path, then 0 or 1 for each label; an item"
    " that shares a label is relevant",
    deviates="lists are checked: no duplicates, no query in another list, no path that leaves the folder, as many"
    " labels in every line. One class number per line is also accepted. The whole picture is resized to a square (as in"
    " CIBA, which then crops 224 of 256 pixels); the trusted images of the defenders and one public image per label are"
    " taken from the list that trusted_from names and are in no other split",
)


@dataset
class ListsOfImages(ListedDataset):
    def published(self) -> PublishedProtocol:
        return PublishedProtocol(folder="lists")

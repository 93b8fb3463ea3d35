"""Your own image lists: train.txt, test.txt and database.txt, each line is an image path and labels.

Paths are relative to the folder of the images, or absolute and in it.
One line of TOML in `[axes]`: `datasets = [{ name = "lists", path = "my_lists", images = "my_images" }]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import dataset
from bench.api.own_files import OWN_FILE
from bench.api.random import Rng
from hashing.datasets.helpers.lists import BIT
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


MOST = 200  # trusted images: METHODOLOGY.md#trusted-set


@dataset
class ListsOfImages(ListedDataset):
    path: Annotated[str, OWN_FILE] = ""
    """Folder with the lists, beside the suite file, in the current folder or below --data; default: lists."""
    images: Annotated[str, OWN_FILE] = ""
    """Folder in which paths of the lists start; default: that of the lists. An image is identified by its path only."""
    trusted: Annotated[int, Field(ge=0)] = 0
    """Number of trusted images, which defenses get; 0: a fifth of the list from which they are taken, at most 200."""

    def published(self) -> PublishedProtocol:
        return PublishedProtocol(folder="lists")

    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        lists = self._lists(root)
        return lists.labels, lists.member

    def sizes(self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"]) -> Mapping[str, int]:
        del labels
        train, database = ((origin & BIT[part]) > 0 for part in ("train", "database"))
        source = train if self.trusted_from == "train" else database & ~train
        return {} if self.trusted else {"trusted": max(1, min(MOST, int(source.sum()) // 5))}

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        whole = replace(self, trusted=self.sizes(labels, origin).get("trusted", self.trusted))
        return super(ListsOfImages, whole).splits(labels, origin, rng)

"""Your own images: a folder, zip or tar with a folder per class, optionally inside train/ and test/ (or val/).

Archives are read in place. Queries are drawn from test/, else from val/, else from all images. These parts may have the
names of published archives: Train and Test, training_set and test_set, training and validation, ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from jaxtyping import Bool, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import DecodedDataset, dataset
from bench.api.own_files import OWN_FILE
from hashing.datasets.helpers.image_folder import decode_tree, labels_of, survey
from hashing.datasets.helpers.shared_splits import SharedSplits

CARD = Card(
    title="ImageFolder (torchvision documentation)",
    year=2017,
    url="https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html",
    follows="one directory per class, numbered in the order of names; image suffixes; deeper directories belong to"
    " their class; every image as 8-bit RGB, orientation tags and transparency ignored",
    deviates="links are refused, a class without images is an error, images are cropped to the centre square; the"
    " splits are ours",
)


@dataset
class Folder(SharedSplits):
    protocol_version: ClassVar[int] = 2
    layout: ClassVar[str] = "a directory, zip, tar, tar.gz or tar.xz of class/image.jpg"

    path: Annotated[str, Field(min_length=1), OWN_FILE]
    """Folder, zip or tar with the images: beside the suite file, in the current folder, or below --data."""

    def files(self, root: Path | None) -> tuple[Path, ...]:
        path = self.found(root)
        return tuple(path / name for name in survey(path).items) if path.is_dir() else (path,)

    def classes(self, root: Path | None) -> tuple[str, ...]:
        return survey(self.found(root)).classes

    def decode(self, root: Path | None) -> DecodedDataset:
        path = self.found(root)
        return decode_tree(path, self.size, survey(path))

    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        return labels_of(survey(self.found(root)))

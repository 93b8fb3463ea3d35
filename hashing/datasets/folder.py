"""Your own images: a folder, zip or tar with a folder per class, optionally inside train/ and test/ (or val/).

Archives are read in place. Queries are drawn from test/, else from val/, else from all images. These parts may have the
names of published archives: Train and Test, training_set and test_set, training and validation, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.errors import DataMissingError
from bench.api.hashing import Dataset, DecodedDataset, dataset
from bench.api.own_files import OWN_FILE, SIZES
from bench.api.random import Rng
from hashing.datasets.helpers.image_folder import decode_tree, labels_of, survey
from hashing.datasets.helpers.shares import shared_sizes
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits

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
class Folder(Dataset):
    protocol_version: ClassVar[int] = 2
    path: Annotated[str, Field(min_length=1), OWN_FILE]
    """Folder, zip or tar with the images: beside the suite file, in the current folder, or below --data."""
    size: Annotated[int, Field(ge=8, le=1024)] = 64
    """Side of the images in pixels."""
    train: Annotated[int, Field(ge=1)] | None = None
    """Number of training images; default: about half of the images."""
    query: QueryCount | None = None
    """Number of queries; default: about 15 % of the images."""
    trusted: Annotated[int, Field(ge=1)] | None = None
    """Number of trusted images, which defenses get; default: about a tenth of the images."""
    database: Annotated[int, Field(ge=1)] | None = None
    """Number of database images; default: all that are left."""

    def files(self, root: Path | None) -> tuple[Path, ...]:
        path = self._found(root)
        return tuple(path / name for name in survey(path).items) if path.is_dir() else (path,)

    def classes(self, root: Path | None) -> tuple[str, ...]:
        return survey(self._found(root)).classes

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        return f"folder {self._found(root).name}", None

    def decode(self, root: Path | None) -> DecodedDataset:
        path = self._found(root)
        return decode_tree(path, self.size, survey(path))

    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        return labels_of(survey(self._found(root)))

    def sizes(self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"]) -> Mapping[str, int]:
        return shared_sizes(labels, self._sizes(), query_from=_asked(origin), train_from=origin == 0)

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        sizes = Sizes(**{**self._sizes(), **self.sizes(labels, origin)})
        return draw_splits(labels, sizes, rng, query_from=_asked(origin), train_from=origin == 0)

    def _sizes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SIZES}

    def _found(self, root: Path | None) -> Path:
        path = (root or Path()) / self.path
        if (root is None and not path.is_absolute()) or not path.exists():
            raise DataMissingError(
                f"folder: '{path}' does not exist",
                "put a directory, zip, tar, tar.gz or tar.xz of class/image.jpg there",
            )
        return path


def _asked(origin: UInt8[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The images that may be queries: those of test/, else of val/, else all."""
    return origin == (1 if (origin == 1).any() else int(origin.max()))

"""Data sets of the user's own images whose splits are shares of the images, unless the user gives sizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from jaxtyping import Bool, Int64, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from bench.api.errors import DataMissingError
from bench.api.hashing import Dataset
from bench.api.own_files import OWN_FILE, SIZES
from bench.api.random import Rng
from hashing.datasets.helpers.image_folder import PARTS
from hashing.datasets.helpers.shares import shared_sizes
from hashing.datasets.helpers.splits import QueryCount, Sizes, draw_splits


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SharedSplits(Dataset, ABC):
    """Origins of images are the numbers of PARTS. Queries are drawn from test, else from val, else from all images.

    layout: what to put at `path`, for the error if nothing is there.
    """

    layout: ClassVar[str]

    path: Annotated[str, Field(min_length=1), OWN_FILE]
    """Files of the data set: beside the suite file, in the current folder, or below --data."""
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

    @abstractmethod
    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        """Labels and origins as `decode` returns them, without decoding an image."""

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        return f"{self._name()} {self.found(root).name}", None

    def sizes(self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"]) -> Mapping[str, int]:
        """The sizes that the parameters leave open, by parameter."""
        return shared_sizes(labels, self._given(), query_from=_asked(origin), train_from=origin == PARTS["train"])

    def splits(
        self, labels: Bool[Tensor, "n k"], origin: UInt8[Tensor, " n"], rng: Rng
    ) -> Mapping[str, Int64[Tensor, " m"]]:
        sizes = Sizes(**{**self._given(), **self.sizes(labels, origin)})
        return draw_splits(labels, sizes, rng, query_from=_asked(origin), train_from=origin == PARTS["train"])

    def found(self, root: Path | None) -> Path:
        """The path of the data set. DataMissingError if nothing is there."""
        path = (root or Path()) / self.path
        if (root is None and not path.is_absolute()) or not path.exists():
            raise DataMissingError(f"{self._name()}: '{path}' does not exist", f"put {self.layout} there")
        return path

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SIZES}

    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]


def _asked(origin: UInt8[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The images that may be queries: those of test, else of val, else all."""
    test = PARTS["test"]
    return origin == (test if (origin == test).any() else int(origin.max()))

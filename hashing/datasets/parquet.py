"""Your own Parquet files, as Hugging Face data sets have them: a column of encoded pictures and a column of labels.

Queries are drawn from the files of the part test, else from those of validation, else from all. The name of a file, or
of its directory, says its part (train-00000-of-00002.parquet, validation/0000.parquet).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import DecodedDataset, dataset
from bench.api.own_files import OWN_FILE
from hashing.datasets.helpers.image_buffer import canvas
from hashing.datasets.helpers.parquet_rows import Rows, pictures_of, rows_of
from hashing.datasets.helpers.parquet_shards import Shard, shards_of
from hashing.datasets.helpers.pictures import decode_pictures
from hashing.datasets.helpers.shared_splits import SharedSplits
from hashing.parquet_files import need_pyarrow

CARD = Card(
    name="Parquet",
    title="Datasets: A Community Library for Natural Language Processing",
    venue="EMNLP",
    year=2021,
    url="https://arxiv.org/abs/2109.02846",
    follows="pictures are the field bytes of a structure, or bytes; labels are class numbers, lists of them, or names;"
    " the names of classes come from the metadata of the schema (ClassLabel); parts are found by the words that the"
    " documentation lists for names of files and directories",
    deviates="classes without an image in the files are left out; pictures that are a path without bytes are refused;"
    " images are 8-bit RGB, cropped to the centre square; the splits are ours, as those of the data set folder",
)


@dataset
class Parquet(SharedSplits):
    layout: ClassVar[str] = "a *.parquet file, or a folder with such files"

    path: Annotated[str, Field(min_length=1), OWN_FILE]
    """Folder with Parquet files, or one file: beside the suite file, in the current folder, or below --data."""
    pattern: str = ""
    """Files of the folder that are read, * for any characters: "data/train-*|data/validation-*"; default: all, which
    must be the files of one data set."""
    image: str = ""
    """Column with the pictures; default: the only column of bytes, or of structures with bytes."""
    label: str = ""
    """Column with the labels; default: the only one with class names, else label or labels, else the only one."""

    def files(self, root: Path | None) -> tuple[Path, ...]:
        return tuple(shard.path for shard in self._shards(root))

    def classes(self, root: Path | None) -> tuple[str, ...]:
        return self._rows(root).classes

    def protocol(self, root: Path | None) -> tuple[str, int | None]:
        name, cutoff = super().protocol(root)
        bare = self._rows(root).bare
        return name + (f" ({bare} images without labels)" if bare else ""), cutoff

    def decode(self, root: Path | None) -> DecodedDataset:
        shards, rows, path = self._shards(root), self._rows(root), self.found(root)
        pixels = canvas(len(rows.labels), 3, self.size, self.size)
        decode_pictures(pictures_of(shards, rows), pixels, source=path, word="picture")
        return DecodedDataset(torch.from_numpy(pixels), rows.labels, rows.origin)

    def labelled(self, root: Path | None) -> tuple[Bool[Tensor, "n k"], UInt8[Tensor, " n"]]:
        rows = self._rows(root)
        return rows.labels, rows.origin

    def _shards(self, root: Path | None) -> tuple[Shard, ...]:
        need_pyarrow("the data set 'parquet'")
        return shards_of(self.found(root), self.pattern)

    def _rows(self, root: Path | None) -> Rows:
        return rows_of(self._shards(root), self.image, self.label)

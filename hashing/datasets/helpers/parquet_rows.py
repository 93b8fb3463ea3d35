"""The labels of all rows of Parquet files, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped, UInt8
from torch import Tensor

from bench.api.archives import LIMITS
from bench.api.errors import DataCorruptError, UserError
from bench.api.untrusted import has_no_controls
from hashing.datasets.helpers.lists import CELLS
from hashing.datasets.helpers.parquet_columns import Columns, columns_of, label_kind
from hashing.datasets.helpers.parquet_shards import Shard
from hashing.datasets.helpers.pictures import Picture
from hashing.image_decoding import PictureError
from hashing.parquet_files import opened, values_of

if TYPE_CHECKING:
    from pyarrow import ChunkedArray


@dataclass(frozen=True)
class Rows:
    """All rows in the order of the files. counts: rows of each file. bare: rows whose list of labels is empty."""

    columns: Columns
    counts: tuple[int, ...]
    classes: tuple[str, ...]
    labels: Bool[Tensor, "n k"]
    origin: UInt8[Tensor, " n"]
    bare: int


def rows_of(shards: Sequence[Shard], image: str, label: str) -> Rows:
    """Labels and parts of all rows, without their pictures.

    image, label: names of columns; "": found by their types. Classes without a row are left out. UserError: a column is
    not there, has another type, or several could be meant. DataCorruptError: a label cannot be used.
    """
    return _rows(
        tuple((shard, (info := shard.path.stat()).st_size, info.st_mtime_ns) for shard in shards), image, label
    )


@lru_cache(maxsize=4)
def _rows(stamps: tuple[tuple[Shard, int, int], ...], image: str, label: str) -> Rows:
    shards = [shard for shard, _, _ in stamps]
    columns = columns_of(shards, image, label)
    parts = [_entries(shard, columns) for shard in shards]
    lengths, values = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    counts = [len(part[0]) for part in parts]
    used, places = np.unique(values, return_inverse=True)
    classes = tuple(columns.names[value] if columns.names else str(value) for value in used)
    _check_classes(shards[0].path.parent, columns.label, classes, len(lengths))
    labels = np.zeros((len(lengths), len(classes)), dtype=bool)
    labels[np.repeat(np.arange(len(lengths)), lengths), places] = True
    if (twice := np.flatnonzero(labels.sum(1) != lengths)).size:
        shard, row = _place(shards, counts, int(twice[0]))
        raise DataCorruptError(
            f"'{shard.path}' row {row} has a label twice",
            "a list holds the classes of an image, not a 0 or 1 for each class",
        )
    origin = np.repeat(np.array([shard.origin for shard in shards], dtype=np.uint8), counts)
    bare = int((lengths == 0).sum())
    return Rows(columns, tuple(counts), classes, torch.from_numpy(labels), torch.from_numpy(origin), bare)


def _check_classes(folder: Path, label: str, classes: Sequence[str], images: int) -> None:
    if len(classes) < 2:
        raise UserError(f"'{folder}': column '{label}' holds {len(classes)} different labels", "retrieval needs two")
    if images * len(classes) > CELLS:
        raise UserError(
            f"'{folder}': column '{label}' holds {len(classes)} different labels for {images} images",
            "name the column of the classes with label",
        )
    if odd := next((name for name in classes if not name.strip() or not has_no_controls(name)), None):
        raise DataCorruptError(f"'{folder}': a class is called {odd!r}", "give it a name without control characters")
    if len(set(classes)) < len(classes):
        raise DataCorruptError(f"'{folder}': two classes have one name", "give each its own")


def _place(shards: Sequence[Shard], counts: Sequence[int], row: int) -> tuple[Shard, int]:
    """The file that holds a row, and the number of the row in it."""
    ends = np.cumsum(counts)
    number = int(np.searchsorted(ends, row, side="right"))
    return shards[number], row - int(ends[number]) + counts[number]


def _entries(shard: Shard, columns: Columns) -> tuple[Int64[np.ndarray, " n"], Shaped[np.ndarray, " v"]]:
    """The number of labels of each row, and all labels in a row."""
    import pyarrow.compute as pc
    from pyarrow import types

    with opened(shard.path) as file:
        column = file.read(columns=[columns.label], use_threads=False).column(0)
        _no_nulls(shard, columns.label, column)
        lengths = np.ones(len(column), dtype=np.int64)
        if label_kind(column.type).startswith("list"):
            lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
            column = pc.list_flatten(column)
            _no_nulls(shard, columns.label, column)
        values = (column.cast(column.type.value_type) if types.is_dictionary(column.type) else column).to_numpy()
    if values.dtype.kind in "iu":
        if values.size and int(values.max()) > np.iinfo(np.int64).max:
            raise DataCorruptError(
                f"'{shard.path}': label {values.max()} is no number of a class", "use smaller numbers"
            )
        values = values.astype(np.int64)
        _check_numbers(shard, columns, np.repeat(np.arange(len(lengths)), lengths), values)
    return lengths, values


def _no_nulls(shard: Shard, label: str, column: ChunkedArray) -> None:
    if column.null_count:
        raise DataCorruptError(
            f"'{shard.path}': column '{label}' holds {column.null_count} labels that are null",
            "give each image a label",
        )


def _check_numbers(
    shard: Shard, columns: Columns, rows: Int64[np.ndarray, " v"], values: Int64[np.ndarray, " v"]
) -> None:
    """DataCorruptError for a class number without a name. rows: the row of each label."""
    if columns.names and (outside := np.flatnonzero((values < 0) | (values >= len(columns.names)))).size:
        first, last = outside[0], len(columns.names) - 1
        raise DataCorruptError(
            f"'{shard.path}' row {rows[first]}: label {values[first]}, expected 0 to {last}",
            "leave out files without labels with pattern",
        )


def pictures_of(shards: Sequence[Shard], rows: Rows) -> Iterator[Picture]:
    """The pictures of all rows, in the order of the files. DataCorruptError: a file has not as many as labels."""
    start = 0
    for shard, count in zip(shards, rows.counts, strict=True):
        place = -1
        for place, value in enumerate(values_of(shard.path, rows.columns.image, rows.columns.field)):
            if place < count:
                name = f"{shard.name} row {place}"
                yield start + place, name, partial(_content, name, value)
        if place + 1 != count:
            raise DataCorruptError(f"'{shard.path}' holds {place + 1} pictures and {count} labels", "get it again")
        start += count


def _content(name: str, value: bytes | None) -> bytes:
    if value is None:
        raise PictureError(name, "holds no bytes of a picture (null)")
    if len(value) > LIMITS.member:
        raise PictureError(name, f"has more than {LIMITS.member} bytes and is refused")
    return value

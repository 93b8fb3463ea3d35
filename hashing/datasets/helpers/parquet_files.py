"""Parquet files in a folder: which of them belong to a data set, the part of each, and reading them in small batches.

pyarrow is imported where a file is read, since it is a package of an extra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.archives import LIMITS
from bench.api.errors import DataCorruptError, DataMissingError, UserError
from bench.api.untrusted import has_no_controls
from hashing.datasets.helpers.image_folder import PARTS

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
ROWS = 4  # that are unpacked at once: a stranger's picture may be large
# The words that Hugging Face's documentation ("File names and splits") gives for parts, and the part of each.
_WORDS = {"training": "train", "testing": "test", "eval": "test", "evaluation": "test", "valid": "val",
          "validation": "val", "dev": "val", **{part: part for part in PARTS}}  # fmt: skip
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """A file. name: relative to the folder of the data set. origin: number of its part."""

    path: Path
    name: str
    origin: int


def need_pyarrow(name: str) -> None:
    """DataMissingError if pyarrow is not installed. name: of the data set."""
    if find_spec("pyarrow") is None:
        raise DataMissingError(f"the data set '{name}' needs the package pyarrow", "pip install 'hashdoor[parquet]'")


def shards_of(path: Path, pattern: str) -> tuple[Shard, ...]:
    """The file, or all visible ones below the folder whose names fit the pattern, in the order of their names.

    pattern: "" for all; alternatives are separated by |; a * stands for any characters. Links to files are followed,
    since the download cache of Hugging Face consists of them. UserError: there is none, or only some are in a part.
    """
    if path.is_file():
        return (Shard(path, path.name, PARTS["train"]),)
    found = {one.relative_to(path).as_posix(): one for one in path.rglob(f"*{SUFFIX}") if one.is_file()}
    names = sorted(name for name in found if not any(word.startswith(".") for word in name.split("/")))
    if odd := next((name for name in names if not has_no_controls(name)), None):
        raise UserError(f"'{path}': the name of {odd!r} holds control characters", "rename the file")
    if not names:
        raise UserError(f"'{path}' holds no *{SUFFIX} file", "give the folder, or the path of a file")
    fitting = [name for name in names if any(fnmatchcase(name, one) for one in (pattern or "*").split("|"))]
    if not fitting:
        raise UserError(
            f"'{path}': pattern '{pattern}' fits none of {len(names)} files", f"the first of them is '{names[0]}'"
        )
    origins = _origins(path, fitting)
    return tuple(Shard(found[name], name, origins[name]) for name in fitting)


def _origins(path: Path, names: Sequence[str]) -> Mapping[str, int]:
    """The part of each file, if there are several and train is among them; else all are of one part."""
    parts = {name: _part(name) for name in names}
    known = {part for part in parts.values() if part}
    if known and (strange := next((name for name, part in parts.items() if not part), "")):
        beside = next(name for name, part in parts.items() if part)
        raise UserError(
            f"'{path}': the name of '{strange}' says no part ({', '.join(PARTS)}), that of '{beside}' does",
            "leave it out with pattern, or rename it",
        )
    return {name: PARTS[part] if {"train"} < known else PARTS["train"] for name, part in parts.items()}


def _part(name: str) -> str:
    """The part that the name of a file says, or else that of the nearest directory; "" if there is none."""
    for word in reversed(name.removesuffix(SUFFIX).split("/")):
        if match := _WORD.search(word):
            return _WORDS[match[1].lower()]
    return ""


@contextmanager
def opened(shard: Shard) -> Iterator[ParquetFile]:
    """The file. DataCorruptError: it would unpack to more than archives may, or pyarrow cannot read it."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(shard.path, buffer_size=2**20) as file:
            _check_size(shard, file)
            yield file
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataCorruptError(f"'{shard.path}' cannot be read as Parquet: {why}", "get it again") from error


def _check_size(shard: Shard, file: ParquetFile) -> None:
    """Sizes are those of row groups: pyarrow ends the process where those of a column are damaged."""
    limit, about = LIMITS.total(shard.path), file.metadata
    if sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups)) > limit:
        raise DataCorruptError(f"'{shard.path}' unpacks to more than {limit} bytes and is refused", "get it again")
    if about.num_rows > LIMITS.count:
        raise DataCorruptError(f"'{shard.path}' holds more than {LIMITS.count} rows and is refused", "split it")


def values_of(shard: Shard, column: str, field: str) -> Iterator[Any]:
    """The values of a column, a few rows at a time; None for a value that is null.

    field: which one of a structure is read; "": the column is none.
    """
    import pyarrow.compute as pc

    name = f"{column}.{field}" if field else column
    with opened(shard) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=[name], use_threads=False):
            cells = batch.column(0)
            for cell in pc.struct_field(cells, field) if field else cells:
                yield cell.as_py()

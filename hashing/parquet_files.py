"""Parquet files from untrusted sources: opened with limits and errors in one line, and read in small batches.

pyarrow is imported where a file is read, since it is a package of an extra.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.archives import LIMITS
from bench.api.errors import DataCorruptError, DataMissingError

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

ROWS = 4  # that are unpacked at once: a stranger's picture may be large


def need_pyarrow(what: str) -> None:
    """DataMissingError if pyarrow is not installed. what: needs it."""
    if find_spec("pyarrow") is None:
        raise DataMissingError(f"{what} needs the package pyarrow", "pip install 'hashdoor[parquet]'")


@contextmanager
def opened(path: Path) -> Iterator[ParquetFile]:
    """The file. DataCorruptError: it would unpack to more than archives may, or pyarrow cannot read it."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=2**20) as file:
            _check_size(path, file)
            yield file
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataCorruptError(f"'{path}' cannot be read as Parquet: {why}", "get it again") from error


def _check_size(path: Path, file: ParquetFile) -> None:
    """Sizes are those of row groups: pyarrow ends the process where those of a column are damaged."""
    limit, about = LIMITS.total(path), file.metadata
    if sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups)) > limit:
        raise DataCorruptError(f"'{path}' unpacks to more than {limit} bytes and is refused", "get it again")
    if about.num_rows > LIMITS.count:
        raise DataCorruptError(f"'{path}' holds more than {LIMITS.count} rows and is refused", "split it")


def holds_lists(kind: DataType) -> bool:
    """Whether a column holds a list in each row."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def values_of(path: Path, column: str, field: str) -> Iterator[Any]:
    """The values of a column, a few rows at a time; None for a value that is null.

    field: which one of a structure is read; "": the column is none.
    """
    import pyarrow.compute as pc

    name = f"{column}.{field}" if field else column
    with opened(path) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=[name], use_threads=False):
            cells = batch.column(0)
            for cell in pc.struct_field(cells, field) if field else cells:
                yield cell.as_py()

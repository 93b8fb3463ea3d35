"""Arrays from the files that hashing code leaves: .npz, .npy, torch.save, safetensors, Parquet, and MATLAB 5 to 7.

All are untrusted: pickled objects are refused, and no array is made that claims more than its file holds.
"""

from __future__ import annotations

import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.api.errors import UserError
from reports import matlab_files

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

Choose = Callable[[Sequence[str]], Iterable[str]]
HOW = "write it with numpy.savez(path, codes=..., labels=...)"
ALONE = ""  # the name of the only array of a file without names
FLOOR, RATIO = 2**30, 100  # an array may have FLOOR bytes, or RATIO times the size of the file if that is larger

_BROKEN = (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, NotImplementedError, MemoryError,
           OverflowError, RuntimeError, IndexError, AttributeError, struct.error, tokenize.TokenError,
           zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)  # fmt: skip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PARQUET = b"PAR1"


def load(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    """The arrays that `choose` picks from the names of all arrays in the file.

    A file of a single array has the name ALONE. UserError with one line: the file is of another form, is damaged, holds
    objects, or claims more than it holds. Errors of `choose` pass through.
    """
    if path.exists() and not path.is_file():  # reading a pipe could wait forever
        raise UserError(f"'{path}' is no ordinary file", "give a file with the arrays codes and labels")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist", "give a file with the arrays codes and labels") from None
    if head.startswith((_HDF5, b"MATLAB 7.3")):
        raise UserError(f"'{path}' is a MATLAB 7.3 file (HDF5), which is not read: save it with -v7, or {HOW}")
    if head.startswith(matlab_files.MARK) or path.suffix.lower() == ".mat":
        return _matlab(path, choose)
    if head.startswith(np.lib.format.MAGIC_PREFIX):
        return _npy(path, choose)
    if head.startswith(_PARQUET):
        return _parquet(path, choose)
    if path.suffix == ".safetensors":
        return _safetensors(path, choose)
    if head.startswith(b"\x80") or (head.startswith(b"PK") and _of_torch(path)):
        return _torch(path, choose)
    if head.startswith(b"PK"):
        return _npz(path, choose)
    raise UserError(f"'{path}' is no file of numpy, torch, safetensors, Parquet or MATLAB: {HOW}")


def _npz(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except _BROKEN as error:
        raise UserError(f"'{path}' is not an .npz file ({_short(error)}): {HOW}") from None
    archive = loaded.zip
    with loaded:
        return {name: _read(path, name, partial(_member, path, archive, name)) for name in choose(loaded.files)}


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name)
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("its compression is not deflate")
    with archive.open(member) as file:
        _check_claim(file, member.file_size, path)
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _npy(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    def only() -> np.ndarray:
        with path.open("rb") as file:
            _check_claim(file, path.stat().st_size, path)
            file.seek(0)
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    return {name: _read(path, name, only) for name in choose([ALONE])}


def _check_claim(file: Any, held: int, path: Path) -> None:
    """ValueError if the header of an array claims more bytes than the file holds, or more than the limit."""
    version = np.lib.format.read_magic(file)
    head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = head(file)
    if not dtype.hasobject:  # objects are refused by numpy
        _check_size(math.prod(shape) * dtype.itemsize, held, path)


def _check_size(size: int, held: int, path: Path) -> None:
    limit = _limit(path)
    if size > min(limit, held):
        raise ValueError(f"it claims {size} bytes, the file holds {held}, the limit is {limit}")


def _limit(path: Path) -> int:
    return max(FLOOR, RATIO * path.stat().st_size)


def _of_torch(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except _BROKEN:
        return False


def _torch(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    from torch import Tensor

    from hashing.weight_files import read_saved

    with path.open("rb") as file:
        found = read_saved(file, f"'{path}'", HOW)
    held = {ALONE: found} if isinstance(found, Tensor) else found
    if not isinstance(held, Mapping):
        raise UserError(f"'{path}' holds a {type(found).__name__}: save a dict of tensors, or {HOW}")
    named = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return {name: _read(path, name, partial(_tensor, path, named[name])) for name in choose(list(named))}


def _tensor(path: Path, value: Any) -> np.ndarray:
    import torch

    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise ValueError("it is no dense tensor of plain numbers")
    _check_size(value.numel() * value.element_size(), value.untyped_storage().nbytes(), path)
    if value.dtype.is_floating_point and value.dtype not in {torch.float16, torch.float32, torch.float64}:
        value = value.float()  # numpy has no bfloat16
    return np.asarray(value.detach().resolve_conj().resolve_neg().numpy())


def _safetensors(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    from hashing.weight_files import read_weights

    held = read_weights(path)
    return {name: _read(path, name, partial(_tensor, path, held[name])) for name in choose(list(held))}


def _parquet(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    from hashing.parquet_files import need_pyarrow, opened

    need_pyarrow(f"'{path}'")
    with opened(path) as file:
        names = choose(file.schema_arrow.names)
        return {name: _read(path, name, partial(_column, file, name)) for name in names}


def _column(file: ParquetFile, name: str) -> np.ndarray:
    """A column of numbers or texts as [n], one of lists of equal lengths as [n, d]."""
    import pyarrow.compute as pc
    from pyarrow import types

    from hashing.parquet_files import holds_lists

    column = file.read(columns=[name], use_threads=False).column(0)
    rows, width = len(column), 0
    if holds_lists(column.type):
        widths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(widths) != 1 or not widths[0]:
            raise ValueError("its lists are empty or of different lengths")
        column, width = pc.list_flatten(column), widths[0]
    if column.null_count:
        raise ValueError("it holds values that are null")
    values = np.asarray(column.to_numpy())
    if types.is_string(column.type) or types.is_large_string(column.type):
        values = values.astype(np.str_)
    return values.reshape(rows, width) if width else values


def _matlab(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    try:
        held = matlab_files.arrays(path.read_bytes(), _limit(path))
    except _BROKEN as error:
        raise UserError(f"'{path}' is not a MATLAB file of version 5 to 7 ({_short(error)}): {HOW}") from None
    return {name: _read(path, name, held[name].read) for name in choose(list(held))}


def _read(path: Path, name: str, read: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return read()
    except _BROKEN as error:
        what = f"array '{name}'" if name else "its array"
        raise UserError(f"'{path}': {what} cannot be read ({_short(error)}); objects are not accepted") from None


def _short(error: BaseException) -> str:
    text = str(error)
    if "pickle" in text:  # numpy advises to load the file unsafely
        text = "it holds pickled objects"
    return " ".join(f"{type(error).__name__}: {text}".split())[:120].rstrip(": ")

"""Published pickles of image batches. Only arrays and plain values are unpickled."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from bench.api.errors import DataCorruptError
from bench.api.untrusted import read_bytes

BYTES = 2**25  # limit for a batch


def read_published(file: Path, md5: str) -> bytes:
    """The content of a published file; DataCorruptError if its checksum is not `md5`."""
    try:
        content = read_bytes(file, BYTES)
    except (OSError, ValueError) as error:
        raise DataCorruptError(f"'{file}' cannot be read: {error}", "get the published file again") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataCorruptError(f"'{file}' is not the published file (md5 differs) and is not opened", "get it again")
    return content


def load_batch(content: bytes, size: int, where: str) -> tuple[UInt8[Tensor, "n 3 h w"], list[int]]:
    """The images and class numbers of a batch with `data` and `labels`. where: file name for error messages."""
    try:
        batch = _Primitive(io.BytesIO(content), encoding="latin1").load()
        pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, size, size)
        numbers = [*batch["labels"]]
    except Exception as error:  # damaged pickles raise any exception
        raise DataCorruptError(f"{where} cannot be read: {error}", "get it again") from error
    return torch.from_numpy(pixels.copy()), numbers


class _Primitive(pickle.Unpickler):
    """Unpickles arrays and types that need no import (dict, list, str, bytes, int); refuses all other names."""

    def find_class(self, module: str, name: str) -> object:
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function, under a name that no version of numpy moves
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return np.ndarray if name == "ndarray" else np.dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

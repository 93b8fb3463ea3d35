"""Reading tensors of stored artifacts one by one, without loading whole files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open

from bench.api.errors import StoreError
from bench.engine.record_cache import RecordCache
from reports.trial_details import SHORTEST

# Errors that reading a valid file raises if the file holds other tensors than its stage writes.
_MISFITS = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)


NO_PICTURES = "a bundle holds no pictures"


@contextmanager
def opened(cache: RecordCache, key: str) -> Iterator[Any]:
    """An open safetensors file of NumPy arrays; StoreError if its checksum or content does not match its record."""
    path, record = cache.store.artifact_path(key), cache.record(key)
    damaged = StoreError(
        f"the artifact {key[:SHORTEST]} is damaged",
        "`python -m bench verify --set-aside`, then run its suite again, which replaces it",
    )
    if record is None or not path.is_file() or not cache.whole(record):
        raise damaged
    try:
        with fitting(key), safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError):
        raise damaged from None


@contextmanager
def fitting(key: str) -> Iterator[None]:
    """Whatever fails in the block because an artifact, or what is read beside it, has another form is a StoreError."""
    try:
        yield
    except _MISFITS as error:
        raise StoreError(
            f"the artifact {key[:SHORTEST]} does not hold the tensors that its stage writes ({type(error).__name__})",
            "see `python -m bench verify`, or remove it and run its suite again",
        ) from error


def evenly_spaced(count: int, most: int) -> Int64[np.ndarray, " k"]:
    """Up to `most` of `count` positions at equal distances: the items of a data set are in the order of classes."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)

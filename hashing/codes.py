"""Packing of hash codes, Hamming distances, and exact nearest neighbours.

Importing this module imports neither torch nor numba.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num

from hashing.packed import MAX_BITS, Distances, LabelRows, Maps, PackedCodes

__all__ = ["MAX_BITS", "Backend", "Distances", "PackedCodes", "TensorLike", "hamming_distances", "pack", "topk"]

Backend = Literal["auto", "numba", "torch"]


@runtime_checkable
class TensorLike(Protocol):
    """The part of a torch tensor's interface that packing uses, so that torch is not imported."""

    @property
    def shape(self) -> Any: ...
    def detach(self) -> Any: ...
    def max(self) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ne__(self, other: Any, /) -> Any: ...


def pack(x: Num[np.ndarray, "n b"] | Bool[np.ndarray, "n b"] | TensorLike) -> PackedCodes:
    """Pack logits, codes of ±1 or bits, from an array or a torch tensor; the bit is x > 0, so that 0 gives bit 0.

    ValueError: x is no matrix, has no columns, or holds NaN.
    """
    shape = tuple(x.shape)
    if len(shape) != 2:
        raise ValueError(f"codes are packed from a matrix [n, bits], not from shape {shape}")
    positive, most = x > 0, x.max() if all(shape) else 0
    if most != most:  # noqa: PLR0124 -- the largest of numbers with a NaN is NaN, which alone differs from itself
        raise ValueError("codes hold NaN: the model that made them has diverged")
    ones = positive if isinstance(positive, np.ndarray) else positive.detach().cpu().numpy()
    items, bits = ones.shape
    if not bits:
        raise ValueError("a code needs at least one bit")
    nbytes = np.zeros((items, -(-bits // 64) * 8), np.uint8)
    if bits % 8:
        nbytes[:, : -(-bits // 8)] = np.packbits(ones, axis=1, bitorder="little")
    else:  # rows end at bytes, so that one call for all rows is possible, which is faster
        nbytes[:, : bits // 8] = np.packbits(ones.reshape(-1), bitorder="little").reshape(items, bits // 8)
    words = nbytes.view("<u8").T.astype(np.uint64, order="C")
    words.flags.writeable = False
    return PackedCodes(words, bits)


def check_pair(queries: PackedCodes, database: PackedCodes) -> None:
    """ValueError if the two cannot be compared."""
    if queries.bits != database.bits:
        raise ValueError(f"queries have {queries.bits} bits and the database has {database.bits}")
    if not len(database):
        raise ValueError("the database is empty")


@runtime_checkable
class Kernels(Protocol):
    """The functions of a back end. maps: see `ranking.Relevance`. labels: of the queries."""

    def all_distances(self, queries: PackedCodes, database: PackedCodes, device: str) -> Distances: ...

    def nearest_items(
        self, queries: PackedCodes, database: PackedCodes, k: int, device: str
    ) -> tuple[Int64[np.ndarray, "q k"], Distances]:
        """The first k items by (distance, index), or all if there are fewer, and their distances."""

    def distance_counts(
        self, queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, device: str
    ) -> tuple[Int64[np.ndarray, "q d"], Int64[np.ndarray, "q d"]]:
        """The numbers of items and of relevant items at each distance."""

    def index_order_sums(
        self, queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, ranks: int, device: str
    ) -> tuple[Float64[np.ndarray, " q"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
        """Per query: sum of the precisions at the hits, number of hits, number of relevant items.

        The first two regard only the first `ranks` items by (distance, index).
        """


def kernels(backend: Backend, device: str) -> Kernels:
    """The back end, imported on first use. auto: numba on the CPU; torch on other devices or if numba is missing."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {get_args(Backend)}, not {backend!r}")
    if backend == "numba" and device != "cpu":
        raise ValueError(f"the numba kernels run on the CPU, not on {device}; use backend='torch'")
    if backend == "numba" or (backend == "auto" and device == "cpu" and find_spec("numba")):
        from hashing.numba_threads import start_threads

        start_threads()  # numba's own error comes while it is imported
        from hashing import numba_kernels

        return numba_kernels
    from hashing import torch_kernels

    return torch_kernels


def hamming_distances(
    queries: PackedCodes, database: PackedCodes, *, backend: Backend = "auto", device: str = "cpu"
) -> Distances:
    """All distances, as uint8 up to 255 bits and as uint16 beyond. For inspection; no metric builds this matrix."""
    check_pair(queries, database)
    return kernels(backend, device).all_distances(queries, database, device)


def topk(
    queries: PackedCodes, database: PackedCodes, k: int, *, backend: Backend = "auto", device: str = "cpu"
) -> tuple[Int64[np.ndarray, "q k"], Distances]:
    """The k nearest items of each query by (distance, index), or all if there are fewer, and their distances; exact."""
    check_pair(queries, database)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    first, same = queries.distinct()
    found = kernels(backend, device).nearest_items(queries.select(first), database, min(k, len(database)), device)
    return found if len(first) == len(same) else (found[0][same], found[1][same])

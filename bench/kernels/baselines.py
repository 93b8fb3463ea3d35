"""Baselines of the kernels: loops of research code, other libraries, and the limits of the machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8, UInt64
from numba import prange

from hashing.codes import PackedCodes
from hashing.numba_kernels import compiled, popcount

Signs = Float[np.ndarray, "q b"]
Ids = Int64[np.ndarray, " q"]
BaseSigns = Float[np.ndarray, "m b"]
BaseIds = Int64[np.ndarray, " m"]
RESIDENT = 2048  # words that stay in a first-level cache


def numpy_loop(
    queries: Signs, own: Ids, items: BaseSigns, labels: BaseIds, cutoff: int | None, *, stable: bool = False
) -> Float64[np.ndarray, " q"]:
    """AP as in research code: per query distances by a product, argsort, cumulative precision.

    stable: ties by index, as in HashDoor; numpy's default sort is faster and leaves equal distances in any order.
    """
    found = np.zeros(len(queries))
    for i, (code, label) in enumerate(zip(queries, own, strict=True)):
        order = np.argsort((items.shape[1] - items @ code) / 2, kind="stable" if stable else None)[:cutoff]
        ranks = np.flatnonzero(labels[order] == label) + 1
        if len(ranks):
            found[i] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
    return found


def torch_sort(
    queries: Signs, own: Ids, items: BaseSigns, labels: BaseIds, batch: int = 32
) -> Float64[np.ndarray, " q"]:
    """The same in torch, a batch of queries at a time."""
    import torch

    codes, classes, found = torch.from_numpy(items), torch.from_numpy(labels), []
    for start in range(0, len(queries), batch):
        mine = torch.from_numpy(own[start : start + batch])
        dots = torch.from_numpy(queries[start : start + batch]) @ codes.T
        order = dots.argsort(dim=1, descending=True, stable=True)
        hits = (classes[order] == mine[:, None]).double()
        places = torch.arange(1, len(items) + 1, dtype=torch.float64)
        found.append((hits * hits.cumsum(1) / places).sum(1) / hits.sum(1).clamp_min(1))
    return np.asarray(torch.cat(found).numpy())


def numpy_distances(queries: PackedCodes, database: PackedCodes, out: UInt8[np.ndarray, "q m"]) -> None:
    """Row by row with numpy's own popcount (numpy 2)."""
    for i in range(len(queries)):
        apart = np.bitwise_count(database.words[0] ^ queries.words[0, i])
        for w in range(1, len(database.words)):
            apart += np.bitwise_count(database.words[w] ^ queries.words[w, i])
        out[i] = apart


def absent(package: str) -> bool:
    return find_spec(package) is None


def faiss_index(database: PackedCodes) -> Any:
    """`IndexBinaryFlat` in its faster mode, which counts instead of using a heap. Needs codes of whole bytes.

    Its newer modes (`approx_topk_mode`) are not exact.
    """
    import faiss

    index: Any = faiss.IndexBinaryFlat(database.bits)
    index.add(nbytes(database))
    index.use_heap = False
    return index


def usearch_search(queries: PackedCodes, database: PackedCodes, k: int) -> Callable[[], Any]:
    """Usearch's exact search by one thread. Needs codes of whole bytes."""
    from usearch.index import MetricKind, search

    asked, base = nbytes(queries), nbytes(database)
    return lambda: search(base, asked, k, MetricKind.Hamming, exact=True, threads=1)


def numkong_distances(queries: PackedCodes, database: PackedCodes) -> Callable[[], Any]:
    """Numkong's distances to a packed database, as uint32. Needs codes of whole bytes."""
    import numkong

    asked, base = nbytes(queries), numkong.hammings_pack(nbytes(database), dtype="uint1")
    return lambda: numkong.hammings_packed(asked, base)


def nbytes(codes: PackedCodes) -> UInt8[np.ndarray, "n o"]:
    return np.packbits(codes.unpack() > 0, axis=1, bitorder="little")


@compiled(parallel=True)
@no_type_check
def _read(words):  # noqa: ANN001, ANN202
    total = np.uint64(0)
    for i in prange(len(words)):
        total += words[i]
    return total


@compiled()
@no_type_check
def _count(words, rounds):  # noqa: ANN001, ANN202
    total = np.uint64(0)
    for turn in range(rounds):
        query = np.uint64(turn)
        for j in range(len(words)):  # LLVM vectorises a loop over an index, not over an iterator
            total += popcount(words[j] ^ query)
    return total


def reading(words: UInt64[np.ndarray, " n"]) -> Callable[[], object]:
    """One pass over memory that only adds: the upper limit of every scan."""
    return lambda: _read(words)


def counting(rounds: int) -> Callable[[], object]:
    """Popcounts of `rounds` x RESIDENT words in the cache, by one thread; no result is stored."""
    words = np.random.default_rng(0).integers(0, 2**63, RESIDENT).astype(np.uint64)
    return lambda: _count(words, rounds)

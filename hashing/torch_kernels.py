"""Distances and rankings by matrix products, for GPUs and for machines without numba; results as of the CPU kernels.

Memory does not grow with queries or database, except in `index_order_sums`, which sorts the database for at least one
query. No loop waits for the device, except in `all_distances`, whose result is on the host.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Num, UInt64
from torch import Tensor

from hashing.packed import Distances, LabelRows, Maps, PackedCodes, distance_type

PAIRS = 1 << 20  # query-item pairs per step on a CPU: about ten MB each for products, keys and counts
DEVICE_PAIRS = 1 << 26  # per step on a GPU, which small products do not fill
UNPACKED = 1 << 20  # unpacked bits and labels of the database at a time, on a CPU
TOGETHER = 256  # queries that share an unpacked part of the database
EXACT = 256  # bits up to which bfloat16 holds every dot product of codes


class _Side:
    """Codes or label maps as words on the device, where some items at a time are unpacked to factors of a product."""

    def __init__(self, words: UInt64[np.ndarray, "w n"], device: str) -> None:
        self._words = torch.from_numpy(words.view(np.int64).copy()).to(device)

    def signs(self, items: slice, bits: int) -> Float[Tensor, "m b"]:
        """The bits as +1 and -1, in the narrowest type whose products are exact."""
        position = torch.arange(bits, device=self._words.device)
        ones = self._words[position // 64, items].bitwise_right_shift_((position % 64)[:, None]).bitwise_and_(1)
        exact = torch.bfloat16 if self._words.device.type != "cpu" and bits <= EXACT else torch.float32
        return (2 * ones - 1).T.to(exact).contiguous()

    def members(self, items: slice) -> Float[Tensor, "k m"]:
        """1 for the labels of each item, else 0."""
        position = torch.arange(items.start, items.stop, device=self._words.device)
        return self._words[:, position // 64].bitwise_right_shift_(position % 64).bitwise_and_(1).float()


def distance_counts(
    queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, device: str
) -> tuple[Int64[np.ndarray, "q d"], Int64[np.ndarray, "q d"]]:
    n, stored, labelled = len(queries), _Side(database.words, device), _Side(maps, device)
    width = queries.bits + 1
    counts = torch.zeros(n, 2 * width, dtype=torch.int64, device=device)
    codes, own = _Side(queries.words, device).signs(slice(0, n), queries.bits), _floats(labels, device)
    for items in _parts(len(database), _unpacked(queries.bits + len(maps), device)):
        block, members = stored.signs(items, queries.bits), labelled.members(items)
        for chunk in _parts(n, _pairs(device) // len(block)):
            _count(2 * _distances(codes[chunk], block) + (own[chunk] @ members > 0), counts[chunk])
    both = counts.view(n, width, 2).cpu().numpy()
    return both.sum(2), both[:, :, 1].copy()


def all_distances(queries: PackedCodes, database: PackedCodes, device: str) -> Distances:
    n, stored = len(queries), _Side(database.words, device)
    codes = _Side(queries.words, device).signs(slice(0, n), queries.bits)
    found = np.empty((n, len(database)), distance_type(queries.bits))
    narrow = torch.uint8 if found.dtype == np.uint8 else torch.int32  # less to copy from the device
    for items in _parts(len(database), _unpacked(queries.bits, device)):
        block = stored.signs(items, queries.bits)
        for chunk in _parts(n, _pairs(device) // len(block)):
            found[chunk, items] = _distances(codes[chunk], block).to(narrow).cpu().numpy()
    return found


def nearest_items(
    queries: PackedCodes, database: PackedCodes, k: int, device: str
) -> tuple[Int64[np.ndarray, "q k"], Distances]:
    n, size, stored = len(queries), len(database), _Side(database.words, device)
    codes = _Side(queries.words, device).signs(slice(0, n), queries.bits)
    best = torch.empty(n, k, dtype=torch.int64, device=device)
    together = min(TOGETHER, max(1, _pairs(device) // (2 * k)))
    for chunk in _parts(n, together):
        nearest = best[chunk, :0]
        for items in _parts(size, min(_unpacked(queries.bits, device), max(k, _pairs(device) // (2 * together)))):
            places = torch.arange(items.start, items.stop, device=device)
            keys = _distances(codes[chunk], stored.signs(items, queries.bits)) * size + places  # all different
            keys = torch.cat([nearest, keys], 1)
            nearest = keys.topk(min(k, keys.shape[1]), largest=False).values
        best[chunk] = nearest
    return (best % size).cpu().numpy(), (best // size).cpu().numpy().astype(distance_type(queries.bits))


def index_order_sums(
    queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, ranks: int, device: str
) -> tuple[Float64[np.ndarray, " q"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
    n, stored, labelled = len(queries), _Side(database.words, device), _Side(maps, device)
    codes, own = _Side(queries.words, device).signs(slice(0, n), queries.bits), _floats(labels, device)
    place = torch.arange(1, ranks + 1, dtype=torch.float64, device=device)
    sums = torch.zeros(n, dtype=torch.float64, device=device)
    hits, found = torch.zeros(2, n, dtype=torch.int64, device=device)
    blocks = list(_parts(len(database), _unpacked(queries.bits + len(maps), device)))
    narrow = torch.uint8 if queries.bits <= 255 else torch.int16 if queries.bits < 2**15 else torch.int32
    for chunk in _parts(n, min(TOGETHER, 4 * _pairs(device) // len(database))):
        asked, wanted = codes[chunk], own[chunk]
        apart = torch.cat([_distances(asked, stored.signs(items, queries.bits)).to(narrow) for items in blocks], 1)
        relevant = torch.cat([wanted @ labelled.members(items) > 0 for items in blocks], 1)
        found[chunk] = relevant.sum(1)
        for rows in _parts(len(apart), _pairs(device) // (4 * len(database))):
            hit = relevant[rows].gather(1, apart[rows].sort(dim=1, stable=True).indices[:, :ranks])
            sums[chunk][rows] = (hit.cumsum(1) * hit / place).sum(1)
            hits[chunk][rows] = hit.sum(1)
    return sums.cpu().numpy(), hits.cpu().numpy(), found.cpu().numpy()


def _pairs(device: str) -> int:
    return PAIRS if device == "cpu" else DEVICE_PAIRS


def _unpacked(rows: int, device: str) -> int:
    """Number of items that are unpacked at a time."""
    return max(1, (UNPACKED if device == "cpu" else 16 * UNPACKED) // rows)


def _floats(values: Bool[np.ndarray, "n k"], device: str) -> Float[Tensor, "n k"]:
    return torch.from_numpy(values).to(device, torch.float32)


def _parts(count: int, step: int) -> Iterator[slice]:
    """Slices of `step` items; the last may be shorter."""
    for start in range(0, count, max(1, step)):
        yield slice(start, min(start + max(1, step), count))


def _distances(queries: Float[Tensor, "q b"], items: Float[Tensor, "m b"]) -> Int64[Tensor, "q m"]:
    """(bits - dot) / 2: small integers, exact in float32, in TF32, and up to EXACT bits in bfloat16."""
    return ((queries.shape[1] - (queries @ items.T).float()) / 2).long()


def _count(keys: Int64[Tensor, "q m"], counts: Num[Tensor, "q d"]) -> None:
    """Add to `counts` in place. bincount is faster on a CPU, but would wait for a GPU."""
    rows, width = counts.shape
    if counts.device.type == "cpu":
        flat = (keys + torch.arange(rows)[:, None] * width).flatten()
        counts += torch.bincount(flat, minlength=rows * width).view(rows, width)
    else:
        counts.scatter_add_(1, keys, torch.ones_like(keys))

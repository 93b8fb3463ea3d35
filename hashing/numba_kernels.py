"""CPU kernels over packed words, compiled by numba and cached on disk.

Each thread takes some of the queries and reads the database in blocks that stay in the first-level cache. Memory does
not grow with queries or database, except for a bit map of the items that are relevant to one query and, in
`index_order`, five bytes for each of these items. Only the type of a distance depends on the number of bits: uint8 up
to 255 bits, else uint16. Threads: `numba.set_num_threads`.
"""
# numba infers the types of its kernels and calls them by position.
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit, prange

from hashing.packed import Distances, LabelRows, Maps, PackedCodes, distance_type

BLOCK = 2048  # items; a multiple of 64, and even
STRETCH = 1 << 17  # items of the database per task of a thread in `all_distances`
LISTED = 1 << 20  # entries of ranked lists in memory at a time
PIECES = 64  # parts of the queries; many small parts keep all threads busy to the end

ONE, TWO, FOUR, TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
PAIRS, NIBBLES, OCTETS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
BYTES, GATHER = np.uint64(0x0101010101010101), np.uint64(0x0102040810204080)


def compiled(**options: bool) -> Callable[[Callable[..., Any]], Any]:
    """`njit` with an on-disk cache if a directory can be written. `no_type_check` keeps jaxtyping away from kernels."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no writable directory
            return njit(**options)(function)

    return decorate


@compiled()
@no_type_check
def popcount(x):
    """Number of set bits of a word. LLVM replaces this idiom by one instruction if the processor has it."""
    x = x - ((x >> ONE) & PAIRS)
    x = (x & NIBBLES) + ((x >> TWO) & NIBBLES)
    x = (x + (x >> FOUR)) & OCTETS
    return (x * BYTES) >> TOP


@compiled()
@no_type_check
def lowest(bits):
    """Position of the lowest set bit."""
    return popcount((bits & (~bits + ONE)) - ONE)


@compiled()
@no_type_check
def block_distances(query, database, start, out):
    """Write the distances of the items from `start` on into `out` until it is full; return how many were written.

    Two planes are summed before the sum is converted to the narrow type, which keeps all lanes of a vector busy.
    """
    count, words = min(len(out), database.shape[1] - start), len(query)
    for w in range(0, words - 1, 2):
        a, b = query[w], query[w + 1]
        one, two = database[w, start : start + count], database[w + 1, start : start + count]
        if w == 0:
            for j in range(count):
                out[j] = popcount(a ^ one[j]) + popcount(b ^ two[j])
        else:
            for j in range(count):
                out[j] += popcount(a ^ one[j]) + popcount(b ^ two[j])
    if words % 2:
        a, one = query[words - 1], database[words - 1, start : start + count]
        if words == 1:
            for j in range(count):
                out[j] = popcount(a ^ one[j])
        else:
            for j in range(count):
                out[j] += popcount(a ^ one[j])
    return count


@compiled(parallel=True)
@no_type_check
def distances(queries, database, out):
    """All distances [q, m]."""
    stretches = (database.shape[1] + STRETCH - 1) // STRETCH
    for task in prange(queries.shape[1] * stretches):
        i, start = task // stretches, task % stretches * STRETCH
        block_distances(queries[:, i].copy(), database, start, out[i, start : start + STRETCH])


@compiled()
@no_type_check
def mark_relevant(maps, labels, mask):
    """Set one bit for each item that has one of the labels; return their number."""
    mask[:] = 0
    for label in labels:
        row = maps[label]
        for g in range(len(mask)):
            mask[g] |= row[g]
    found = np.uint64(0)
    for g in range(len(mask)):
        found += popcount(mask[g])
    return np.int64(found)


@compiled()
@no_type_check
def count_block(block, keys, width, bins, total):
    """Count pairs of distances, one from each half of the block; an odd item is counted in `total`."""
    half = len(block) // 2
    one, two = block[:half], block[half : 2 * half]
    for j in range(half):
        keys[j] = np.uint16(one[j]) * np.uint16(width) + np.uint16(two[j])
    for j in range(half):
        bins[keys[j]] += np.uint32(1)
    if len(block) % 2:
        total[block[-1]] += 1


@compiled()
@no_type_check
def count_marked(block, mask, flipped, counts):
    """Count the distances of the items whose bit is set (not set, if `flipped` has all bits set)."""
    for group in range((len(block) + 63) // 64):
        bits, base = mask[group] ^ flipped, np.uint64(64 * group)
        if len(block) - 64 * group < 64:
            bits &= (ONE << np.uint64(len(block) - 64 * group)) - ONE
        while bits:
            counts[block[base + lowest(bits)]] += 1
            bits &= bits - ONE


@compiled()
@no_type_check
def count_row(query, database, mask, majority, scratch, keys, bins, total, relevant):
    """Count the items at each distance in `total` and those in the mask in `relevant`; both start as zeros.

    bins: one per pair of distances, so that an increment counts two items; or one per distance.
    majority: most items are relevant, so the loop over set bits runs over the irrelevant ones.
    """
    width, paired = len(total), len(bins) > len(total)
    flipped = ~np.uint64(0) if majority else np.uint64(0)
    bins[:] = 0
    for start in range(0, database.shape[1], BLOCK):
        block = scratch[: block_distances(query, database, start, scratch)]
        if paired:
            count_block(block, keys, width, bins, total)
        else:
            for j in range(len(block)):
                bins[block[j]] += np.uint32(1)
        count_marked(block, mask[start // 64 :], flipped, relevant)
    for first in range(len(bins) // width):
        row = bins[first * width : (first + 1) * width]
        if paired:
            total[first] += row.sum()
        total += row
    if majority:
        relevant[:] = total - relevant


@compiled(parallel=True)
@no_type_check
def histograms(queries, database, maps, offsets, labels, narrow, bins, total, relevant):
    """Count the items and the relevant items at each distance in `total` and `relevant` [q, d], which start as zeros.

    maps: bit j % 64 of word [l, j // 64] says that item j has label l.
    labels: `labels[offsets[i]:offsets[i + 1]]` are the labels of query i.
    narrow: an empty array of the type of a distance. bins: their number, see `count_row`.
    """
    count, items = queries.shape[1], database.shape[1]
    pieces = min(count, PIECES)
    for piece in prange(pieces):
        block, keys = np.empty(BLOCK, narrow.dtype), np.empty(BLOCK // 2, np.uint16)
        pairs, mask = np.empty(bins, np.uint32), np.zeros((items + 63) // 64, np.uint64)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            own, query = labels[offsets[i] : offsets[i + 1]], queries[:, i].copy()
            majority = 2 * mark_relevant(maps, own, mask) > items
            count_row(query, database, mask, majority, block, keys, pairs, total[i], relevant[i])


@compiled()
@no_type_check
def order_row(query, database, mask, block, places, counts, hits, found_at, found_place):
    """Sum over the relevant items of hits / rank, in the order of (distance, index).

    One pass records the position of each relevant item among the items at its distance; the counts then give ranks.
    """
    counts[:] = 0
    hits[:] = 0
    n = 0
    for start in range(0, database.shape[1], BLOCK):
        count = block_distances(query, database, start, block)
        for j in range(count):
            place = counts[block[j]] + np.uint32(1)
            counts[block[j]] = place
            places[j] = place
        for group in range((count + 63) // 64):
            bits, base = mask[start // 64 + group], np.uint64(64 * group)
            while bits:
                j = base + lowest(bits)
                found_at[n], found_place[n] = block[j], places[j]
                hits[block[j]] += np.uint32(1)
                n += 1
                bits &= bits - ONE
    nearer = np.uint32(0)
    nearer_hits = np.uint32(0)
    for d in range(len(counts)):  # counts becomes the number of nearer items
        counts[d], nearer = nearer, nearer + counts[d]
        hits[d], nearer_hits = nearer_hits, nearer_hits + hits[d]
    precision = 0.0
    for i in range(n):
        d = found_at[i]
        hits[d] += np.uint32(1)
        precision += hits[d] / (counts[d] + found_place[i])
    return precision


@compiled(parallel=True)
@no_type_check
def index_order(queries, database, maps, offsets, labels, narrow, width, precision, found):
    """Sum of the precisions at the relevant items in the order of (distance, index), and the number of these items.

    width: number of distances. Other arguments: as for `histograms`.
    """
    count, items = queries.shape[1], database.shape[1]
    pieces = min(count, PIECES)
    for piece in prange(pieces):
        block, places = np.empty(BLOCK, narrow.dtype), np.empty(BLOCK, np.uint32)
        counts, hits = np.empty(width, np.uint32), np.empty(width, np.uint32)
        mask = np.empty((items + 63) // 64, np.uint64)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            found[i] = mark_relevant(maps, labels[offsets[i] : offsets[i + 1]], mask)
            found_at, found_place = np.empty(found[i], narrow.dtype), np.empty(found[i], np.uint32)
            query = queries[:, i].copy()
            precision[i] = order_row(query, database, mask, block, places, counts, hits, found_at, found_place)


@compiled()
@no_type_check
def mark_near(block, limit, flags, nbytes):
    """Bit j of word j // 64 says that the distance of item j is at most `limit`; the words are the first of `nbytes`.

    flags: one byte per item. `nbytes` is a view of eight bytes per word; a product moves their lowest bits to its top
    byte.
    """
    for j in range(len(block)):
        flags[j] = block[j] <= limit
    flags[len(block) :] = 0
    for group in range((len(block) + 63) // 64):
        bits = np.uint64(0)
        for part in range(8):
            bits |= ((nbytes[8 * group + part] * GATHER) >> TOP) << np.uint64(8 * part)
        nbytes[group] = bits


@compiled()
@no_type_check
def nearest_row(query, database, scratch, flags, nbytes, places, indices, at):
    """Write the first items by (distance, index) into `indices` until it is full, and their distances into `at`."""
    limit = 0
    for d in range(len(places)):
        if places[d] < len(indices):
            limit = d
    near = scratch.dtype.type(limit)
    for start in range(0, database.shape[1], BLOCK):
        block = scratch[: block_distances(query, database, start, scratch)]
        mark_near(block, near, flags, nbytes)
        for group in range((len(block) + 63) // 64):
            bits, base = nbytes[group], np.uint64(64 * group)
            while bits:
                j = base + lowest(bits)
                place = places[block[j]]
                if place < len(indices):
                    places[block[j]] = place + 1
                    indices[place], at[place] = start + np.int64(j), block[j]
                bits &= bits - ONE


@compiled(parallel=True)
@no_type_check
def nearest(queries, database, narrow, places, indices, at):
    """Write the first k items by (distance, index) of each query into `indices` [q, k].

    places: number of items nearer than each distance [q, d]; overwritten. narrow: as for `histograms`.
    """
    count = queries.shape[1]
    pieces = min(count, PIECES)
    for piece in prange(pieces):
        block, flags = np.empty(BLOCK, narrow.dtype), np.empty(BLOCK, np.uint8)
        nbytes = flags.view(np.uint64)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            nearest_row(queries[:, i].copy(), database, block, flags, nbytes, places[i], indices[i], at[i])


@compiled(parallel=True)
@no_type_check
def listed_order(maps, offsets, labels, indices, precision, hits):
    """Sum of the precisions at the relevant items of the lists [q, k], and the number of these items."""
    for i in prange(len(indices)):
        own = labels[offsets[i] : offsets[i + 1]]
        found = 0
        for rank in range(indices.shape[1]):
            item = indices[i, rank]
            for label in own:
                if (maps[label, item // 64] >> np.uint64(item % 64)) & ONE:
                    found += 1
                    precision[i] += found / (rank + 1)
                    break
        hits[i] = found


@compiled(parallel=True)
@no_type_check
def count_relevant(maps, offsets, labels, items, found):
    """Number of relevant items per query."""
    for i in prange(len(found)):
        found[i] = mark_relevant(maps, labels[offsets[i] : offsets[i + 1]], np.empty((items + 63) // 64, np.uint64))


def bins_for(width: int, items: int) -> int:
    """Number of bins: one per pair of distances if that is faster (measured), else one per distance."""
    return width * width if width <= 256 and 2 * width * width <= items else width


def all_distances(queries: PackedCodes, database: PackedCodes, device: str) -> Distances:
    del device  # always the CPU
    found = np.empty((len(queries), len(database)), distance_type(queries.bits))
    distances(queries.words, database.words, found)
    return found


def nearest_items(
    queries: PackedCodes, database: PackedCodes, k: int, device: str
) -> tuple[Int64[np.ndarray, "q k"], Distances]:
    nothing = np.zeros((0, 0), np.uint64)
    nothing.flags.writeable = False  # as in `Relevance`, since numba compiles once per kind of array
    total, _ = distance_counts(queries, database, nothing, np.zeros((len(queries), 0), np.bool_), device)
    narrow = np.empty(0, distance_type(queries.bits))
    indices, at = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), narrow.dtype)
    nearest(queries.words, database.words, narrow, total.cumsum(1) - total, indices, at)
    return indices, at


def distance_counts(
    queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, device: str
) -> tuple[Int64[np.ndarray, "q d"], Int64[np.ndarray, "q d"]]:
    del device
    width = queries.bits + 1
    total, relevant = np.zeros((2, len(queries), width), np.int64)
    narrow, bins = np.empty(0, distance_type(queries.bits)), bins_for(width, len(database))
    histograms(queries.words, database.words, maps, *_label_lists(labels), narrow, bins, total, relevant)
    return total, relevant


def index_order_sums(
    queries: PackedCodes, database: PackedCodes, maps: Maps, labels: LabelRows, ranks: int, device: str
) -> tuple[Float64[np.ndarray, " q"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
    precision, (offsets, lists) = np.zeros(len(queries)), _label_lists(labels)
    hits, found = np.zeros((2, len(queries)), np.int64)
    if ranks == len(database):
        narrow = np.empty(0, distance_type(queries.bits))
        index_order(queries.words, database.words, maps, offsets, lists, narrow, queries.bits + 1, precision, found)
        return precision, found, found
    step = max(1, LISTED // ranks)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        indices, _ = nearest_items(queries.select(part), database, ranks, device)
        listed_order(maps, offsets[start : start + step + 1], lists, indices, precision[part], hits[part])
    count_relevant(maps, offsets, lists, len(database), found)
    return precision, hits, found


def _label_lists(labels: LabelRows) -> tuple[Int64[np.ndarray, " o"], Int64[np.ndarray, " l"]]:
    """Query i has the labels `lists[offsets[i]:offsets[i + 1]]`."""
    offsets = np.concatenate([[0], labels.sum(1).cumsum()]).astype(np.int64)
    return offsets, np.nonzero(labels)[1].astype(np.int64)

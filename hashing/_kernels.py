"""CPU kernels over packed words, compiled by numba and cached on disk.

One thread takes one query at a time and walks the database in blocks that stay in the first-level cache, so memory does
not grow with the database. Nothing is specialised on the number of bits. Threads: `numba.set_num_threads`.
"""
# numba infers the types of its kernels and calls them by position.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

BLOCK = 2048  # items; a multiple of 64
LANES = 4  # copies of the histogram, so that equal distances in a row need not wait for each other

ONE, TWO, FOUR, TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
PAIRS, NIBBLES, OCTETS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
BYTES = np.uint64(0x0101010101010101)


def compiled(**options: bool) -> Callable[[Callable[..., Any]], Any]:
    """`njit` with an on-disk cache where it can be written; `no_type_check` below it keeps jaxtyping out."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no directory that could be written to
            return njit(**options)(function)

    return decorate


@compiled()
@no_type_check
def popcount(x):
    """Set bits of a word. LLVM knows this idiom and emits the processor's own instruction where there is one."""
    x = x - ((x >> ONE) & PAIRS)
    x = (x & NIBBLES) + ((x >> TWO) & NIBBLES)
    x = (x + (x >> FOUR)) & OCTETS
    return (x * BYTES) >> TOP


@compiled()
@no_type_check
def block_keys(query, database, maps, labels, start, keys):
    """Writes 2 * distance + relevant for the block at `start`; returns how many items it has."""
    count = min(len(keys), database.shape[1] - start)
    for w in range(len(query)):
        word, plane = query[w], database[w, start : start + count]
        if w == 0:
            for j in range(count):
                keys[j] = np.uint32(popcount(word ^ plane[j])) << np.uint32(1)
        else:
            for j in range(count):
                keys[j] += np.uint32(popcount(word ^ plane[j])) << np.uint32(1)
    if len(labels):
        for group in range((count + 63) // 64):
            mask = np.uint64(0)
            for label in labels:
                mask |= maps[label, start // 64 + group]
            part = keys[64 * group : min(count, 64 * group + 64)]
            for j in range(len(part)):
                part[j] |= np.uint32((mask >> np.uint64(j)) & ONE)
    return count


@compiled()
@no_type_check
def histogram_row(query, database, maps, labels, total, relevant):
    keys = np.empty(BLOCK, np.uint32)
    bins = np.zeros((LANES, 2 * len(total)), np.uint32)
    for start in range(0, database.shape[1], BLOCK):
        count = block_keys(query, database, maps, labels, start, keys)
        for j in range(0, count - LANES + 1, LANES):
            for lane in range(LANES):
                bins[lane, keys[j + lane]] += np.uint32(1)
        for j in range(count // LANES * LANES, count):
            bins[0, keys[j]] += np.uint32(1)
    for d in range(len(total)):
        for lane in range(LANES):
            relevant[d] += bins[lane, 2 * d + 1]
            total[d] += bins[lane, 2 * d] + bins[lane, 2 * d + 1]


@compiled(parallel=True)
@no_type_check
def histograms(queries, database, maps, offsets, labels, total, relevant):
    """Adds the items and the relevant items at each distance to `total` and `relevant` [q, d].

    maps: bit j % 64 of word [l, j // 64] says that item j has label l.
    labels: `labels[offsets[i]:offsets[i + 1]]` are the labels of query i.
    """
    for i in prange(queries.shape[1]):
        own = labels[offsets[i] : offsets[i + 1]]
        histogram_row(queries[:, i].copy(), database, maps, own, total[i], relevant[i])


@compiled()
@no_type_check
def last_key(places, count):
    """The largest key that can be among the first `count` items."""
    last = 0
    for d in range(len(places)):
        if places[d] < count:
            last = d
    return np.uint32(2 * last + 1)


@compiled()
@no_type_check
def index_order_row(query, database, maps, labels, places, hits, cutoff):
    keys = np.empty(BLOCK, np.uint32)
    limit = last_key(places, cutoff)
    precision, found = 0.0, 0
    for start in range(0, database.shape[1], BLOCK):
        count = block_keys(query, database, maps, labels, start, keys)
        for key in keys[:count]:
            if key <= limit:
                d = key >> np.uint32(1)
                places[d] += 1
                if key & np.uint32(1) and places[d] <= cutoff:
                    hits[d] += 1
                    precision += hits[d] / places[d]
                    found += 1
    return precision, found


@compiled(parallel=True)
@no_type_check
def index_order(queries, database, maps, offsets, labels, places, hits, cutoff, precision, found):
    """Sum of the precisions at the hits among the first `cutoff` items by (distance, index), and how many they are.

    places, hits: items and relevant items nearer than each distance [q, d]; overwritten.
    """
    for i in prange(queries.shape[1]):
        own = labels[offsets[i] : offsets[i + 1]]
        query = queries[:, i].copy()
        precision[i], found[i] = index_order_row(query, database, maps, own, places[i], hits[i], cutoff)


@compiled()
@no_type_check
def nearest_row(query, database, maps, labels, places, indices, distances):
    keys = np.empty(BLOCK, np.uint32)
    limit = last_key(places, len(indices))
    for start in range(0, database.shape[1], BLOCK):
        count = block_keys(query, database, maps, labels, start, keys)
        for j in range(count):
            if keys[j] <= limit:
                d = keys[j] >> np.uint32(1)
                place = places[d]
                places[d] += 1
                if place < len(indices):
                    indices[place], distances[place] = start + j, d


@compiled(parallel=True)
@no_type_check
def nearest(queries, database, maps, labels, places, indices, distances):
    """The first items by (distance, index) of each query, as many as `indices` [q, k] has columns.

    places: items nearer than each distance [q, d]; overwritten. maps, labels: empty.
    """
    for i in prange(queries.shape[1]):
        nearest_row(queries[:, i].copy(), database, maps, labels, places[i], indices[i], distances[i])

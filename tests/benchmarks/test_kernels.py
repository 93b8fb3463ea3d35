"""Kernels against the loops that researchers write, each checked before it is timed. `nox -s bench` times them."""

from __future__ import annotations

import numpy as np
import pytest

from hashing.codes import hamming_distances, pack
from hashing.ranking import Relevance, average_precision, distance_histograms

QUERIES, ITEMS, CLASSES = 64, 20_000, 10


def clustered(bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes around class centres with each bit flipped with probability 0.15, as a trained model's are."""
    rng = np.random.default_rng(0)
    centres = rng.choice([-1, 1], (CLASSES, bits))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(CLASSES, size=n)
        return np.where(rng.random((n, bits)) < 0.15, -1, 1) * centres[labels], labels

    return *draw(QUERIES), *draw(ITEMS)


def research_loop(query: np.ndarray, q_labels: np.ndarray, items: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distances, argsort and cumulative precision per query, ties by index."""
    found = []
    for code, label in zip(query.astype(np.float32), q_labels, strict=True):
        order = np.argsort(-(items.astype(np.float32) @ code), kind="stable")
        hits = labels[order] == label
        ranks = np.flatnonzero(hits) + 1
        found.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
    return np.array(found)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("method", ["hashdoor", "loop"])
def test_average_precision_by_index(benchmark, bits: int, method: str) -> None:
    query, q_labels, items, labels = clustered(bits)
    expected = research_loop(query[:8], q_labels[:8], items, labels)
    q, db, relevance = pack(query), pack(items), Relevance(labels)
    measured = average_precision(q, db, relevance, q_labels, ties="index")
    np.testing.assert_allclose(measured[:8], expected, atol=1e-12)
    if method == "hashdoor":
        benchmark(average_precision, q, db, relevance, q_labels, ties="index")
    else:
        benchmark.pedantic(research_loop, args=(query, q_labels, items, labels), rounds=3)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_distance_histograms(benchmark, bits: int, backend: str) -> None:
    query, q_labels, items, labels = clustered(bits)
    q, db, relevance = pack(query), pack(items), Relevance(labels)
    total, relevant = distance_histograms(q, db, relevance, q_labels, backend=backend)
    distances = hamming_distances(q, db)
    assert np.array_equal(total, np.stack([np.bincount(row, minlength=bits + 1) for row in distances]))
    mine = [np.bincount(row[labels == c], minlength=bits + 1) for row, c in zip(distances, q_labels, strict=True)]
    assert np.array_equal(relevant, np.stack(mine))
    benchmark(distance_histograms, q, db, relevance, q_labels, backend=backend)


def test_packing(benchmark) -> None:
    codes = np.random.default_rng(0).standard_normal((50_000, 64), dtype=np.float32)
    assert np.array_equal(pack(codes[:100]).unpack(), np.where(codes[:100] > 0, 1, -1))
    benchmark(pack, codes)

"""Every kernel of both back ends against sorting and counting in numpy, over the shapes where their paths divide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashing import numba_kernels, ranking, torch_kernels
from hashing.codes import PackedCodes, hamming_distances, pack, topk
from hashing.ranking import Relevance, average_precision, distance_histograms

BACKENDS = [("numba", "cpu"), ("torch", "cpu"), pytest.param("torch", "cuda", marks=pytest.mark.gpu)]
CASES = [  # bits, items, share of items with each label
    (1, 5, 0.5),
    (5, 64, 0.0),
    (8, 1, 1.0),
    (12, 4097, 0.1),  # an odd rest, two distances per increment
    (16, 2049, 0.9),  # most are relevant: the others are walked
    (64, 9001, 0.3),
    (64, 300, 1.0),  # one distance per increment
    (129, 2100, 0.02),
    (255, 700, 0.5),
    (256, 700, 0.5),  # distances in two bytes
    (512, 2500, 0.1),
    (513, 130, 0.4),
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """So that small cases take more than one part of everything."""
    monkeypatch.setattr(torch_kernels, "PAIRS", 9000)
    monkeypatch.setattr(torch_kernels, "UNPACKED", 100_000)
    monkeypatch.setattr(torch_kernels, "TOGETHER", 3)
    monkeypatch.setattr(ranking, "ROWS", 300)
    monkeypatch.setattr(numba_kernels, "LISTED", 100)


def drawn(
    bits: int, items: int, share: float, queries: int = 7
) -> tuple[PackedCodes, PackedCodes, Relevance, np.ndarray]:
    """Codes near to three centres, so that distances repeat; items with any of 70 labels, queries with some."""
    rng = np.random.default_rng([bits, items])
    centres = rng.standard_normal((3, bits))
    codes = [pack(centres[rng.integers(3, size=n)] + rng.standard_normal((n, bits))) for n in (queries, items)]
    labels, own = np.zeros((items, 70), np.bool_), np.zeros((queries, 70), np.bool_)
    labels[rng.random(items) < share, 69] = True
    labels[:, 1] = rng.random(items) < share / 4
    own[:, 69] = True
    own[::3, 1] = True
    return *codes, Relevance(labels), own


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
@pytest.mark.parametrize(("bits", "items", "share"), CASES)
def test_kernels_sort_and_count_as_numpy_does(backend, device, bits, items, share):
    queries, database, relevance, own = drawn(bits, items, share)
    where = {"backend": backend, "device": device}
    apart = (queries.unpack()[:, None] != database.unpack()).sum(2)
    relevant = relevance.of(own)
    found = hamming_distances(queries, database, **where)
    assert found.dtype == (np.uint8 if bits <= 255 else np.uint16)
    assert np.array_equal(found, apart)
    total, hits = distance_histograms(queries, database, relevance, own, **where)
    assert np.array_equal(total, [np.bincount(row, minlength=bits + 1) for row in apart])
    mine = [np.bincount(row[own_items], minlength=bits + 1) for row, own_items in zip(apart, relevant, strict=True)]
    assert np.array_equal(hits, mine)
    order = apart.argsort(1, kind="stable")
    for k in (1, 30, items, items + 1):
        indices, distances = topk(queries, database, k, **where)
        assert distances.dtype == found.dtype
        assert np.array_equal(indices, order[:, :k])
        assert np.array_equal(distances, np.take_along_axis(apart, order[:, :k], 1))
    for cutoff in (None, 1, 30, items - 1 or 1, items, items + 1):
        hit = np.take_along_axis(relevant, order, 1)[:, :cutoff]
        sums = (hit * hit.cumsum(1) / np.arange(1, hit.shape[1] + 1)).sum(1)
        every = relevant.sum(1)
        below = {"relevant": np.minimum(every, hit.shape[1]), "hits": np.maximum(hit.sum(1), 1)}
        for denominator, count in below.items():
            ap = average_precision(
                queries, database, relevance, own, cutoff, ties="index", denominator=denominator, **where
            )
            assert np.array_equal(np.isnan(ap), every == 0)
            known = every > 0
            np.testing.assert_allclose(ap[known], sums[known] / count[known], rtol=0, atol=1e-12)


@pytest.mark.parametrize("queries", [0, 1, 63, 64, 65, 200])
def test_every_query_belongs_to_one_piece(queries):
    q, database, relevance, own = drawn(20, 150, 0.3, queries)
    apart = (q.unpack()[:, None] != database.unpack()).sum(2)
    total, _ = distance_histograms(q, database, relevance, own, backend="numba")
    assert np.array_equal(total, np.reshape([np.bincount(row, minlength=21) for row in apart], (queries, 21)))
    assert np.array_equal(topk(q, database, 4, backend="numba")[0], apart.argsort(1, kind="stable")[:, :4])
    ours, theirs = (
        average_precision(q, database, relevance, own, ties="index", backend=name) for name in ("numba", "torch")
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from([1, 7, 8, 9, 63, 64, 65, 127, 200, 254, 255, 256, 300]), items=st.integers(1, 5000),
    queries=st.integers(1, 40), pool=st.integers(1, 400), labels=st.integers(0, 6), k=st.integers(1, 5000),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_equal_and_alike_items_and_queries_change_nothing(bits, items, queries, pool, labels, k, seed):
    """Codes from a small pool, so that frequent, rare and single ones occur, with any sets of labels, also none."""
    rng = np.random.default_rng(seed)
    spread = rng.random() * (rng.random(bits) - 0.5)
    codes = pack(rng.standard_normal((pool, bits)) + 8 * spread)
    weights = rng.dirichlet(np.full(pool, rng.choice([0.02, 1.0])))
    database, asked = (codes.select(rng.choice(pool, n, p=weights)) for n in (items, queries))
    share = rng.choice([0.02, 0.5, 1.0])
    relevance, own = Relevance(rng.random((items, labels)) < share), rng.random((queries, labels)) < 0.4
    apart, relevant = (asked.unpack()[:, None] != database.unpack()).sum(2), relevance.of(own)
    total, hits = distance_histograms(asked, database, relevance, own, backend="numba")
    for i in range(queries):
        assert np.array_equal(total[i], np.bincount(apart[i], minlength=bits + 1))
        assert np.array_equal(hits[i], np.bincount(apart[i][relevant[i]], minlength=bits + 1))
    order = apart.argsort(1, kind="stable")[:, :k]
    indices, found = topk(asked, database, k, backend="numba")
    assert np.array_equal(indices, order)
    assert np.array_equal(found, np.take_along_axis(apart, order, 1))
    hit = np.take_along_axis(relevant, apart.argsort(1, kind="stable"), 1)
    with np.errstate(invalid="ignore"):
        expected = (hit * hit.cumsum(1) / np.arange(1, items + 1)).sum(1) / hit.sum(1)
    ap = average_precision(asked, database, relevance, own, ties="index", backend="numba")
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-12)


def test_backends_agree_beyond_one_chunk():
    rng = np.random.default_rng(5)
    queries, database = pack(rng.standard_normal((11, 130))), pack(rng.standard_normal((1000, 130)))
    labels, own = rng.random((1000, 100)) < 0.02, rng.random((11, 100)) < 0.05
    a = distance_histograms(queries, database, Relevance(labels), own, backend="numba")
    b = distance_histograms(queries, database, Relevance(labels), own, backend="torch")
    assert np.array_equal(a, b)
    assert a[1].sum() == Relevance(labels).of(own).sum() > 0


def test_two_distances_are_counted_at_once_only_where_it_pays():
    assert numba_kernels.bins_for(65, 10_000) == 65 * 65
    assert numba_kernels.bins_for(65, 8_000) == 65
    assert numba_kernels.bins_for(256, 10**6) == 256 * 256
    assert numba_kernels.bins_for(257, 10**7) == 257  # a pair would not fit into 16 bits


def test_all_codes_equal_and_a_query_twice():
    codes = pack(np.ones((5000, 33)))
    labels = np.arange(5000) % 3
    ap = average_precision(
        codes.select(np.zeros(2, np.int64)), codes, Relevance(labels), np.array([1, 1]), ties="index"
    )
    ranks = np.flatnonzero(labels == 1) + 1
    expected = float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    assert ap.tolist() == pytest.approx([expected, expected], abs=1e-12)
    assert topk(codes.select(slice(1)), codes, 3)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("bits", [128, 255, torch_kernels.EXACT])
def test_dot_products_of_half_precision_are_exact_up_to_their_limit(bits):
    """What a GPU multiplies: every dot product of codes is an even or odd integer that bfloat16 holds."""
    one = torch.ones(bits + 1, bits).tril(-1).mul(2).sub(1).to(torch.bfloat16)
    dots = (one @ one[:1].T).float()[:, 0]
    assert dots.tolist() == [bits - 2 * d for d in range(bits + 1)]


def test_half_precision_ends_where_it_should():
    beyond = torch.tensor([torch_kernels.EXACT + 1.0])
    assert float(beyond.to(torch.bfloat16)) != float(beyond)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("queries", "items", "bits", "backend"), [(5000, 1_000_000, 64, "numba"), (5000, 20_000, 512, "numba"),
                                              (100, 140_000, 64, "torch"), (100, 140_000, 512, "torch")],
)  # fmt: skip
def test_memory_does_not_grow_with_the_pairs(queries, items, bits, backend):
    """Under 64 MiB beside codes and label maps, counting what numba allocates."""
    from bench.kernels.kernel_benchmark import peak_memory

    rng = np.random.default_rng(0)
    words = (bits + 63) // 64
    asked, database = (PackedCodes(rng.integers(0, 2**63, (words, n), np.uint64), bits) for n in (queries, items))
    relevance, own = Relevance(rng.integers(0, 10, items)), rng.integers(0, 10, queries)
    few, labels = database.select(slice(1000)), Relevance(np.arange(1000) % 10)
    for ties, denominator in (("expected", "relevant"), ("expected", "hits"), ("index", "relevant")):
        how = {"ties": ties, "denominator": denominator, "backend": backend}
        average_precision(asked.select(slice(2)), few, labels, own[:2], **how)
        held, _ = peak_memory(lambda how=how: average_precision(asked, database, relevance, own, **how))
        assert 0 <= held < 64 + (41 if bits == 512 and queries == 5000 else 0), how  # the histograms themselves

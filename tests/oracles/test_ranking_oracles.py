"""The ranking metrics against enumeration, simulation, plain sorting and other libraries."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import faiss
import numba
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.retrieval import retrieval_average_precision

from hashing.codes import hamming_distances, pack, topk
from hashing.ranking import (
    Relevance,
    ap_bounds,
    auroc,
    average_precision,
    chance_ap,
    distance_histograms,
    expected_ap,
    expected_zero_ap,
    precision_at,
    tpr_at_fpr,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thread pools of several libraries in one process slow each other down."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def orders(buckets):
    """Every arrangement of the relevant items inside their buckets, each equally likely."""
    spots = [list(combinations(range(n), r)) for n, r in buckets]
    for chosen in product(*spots):
        yield [int(i in taken) for (n, _), taken in zip(buckets, chosen, strict=True) for i in range(n)]


def precision_sum(order, cutoff):
    """Sum of the precisions at the hits among the first `cutoff`, and the number of these."""
    total, hits = Fraction(0), 0
    for rank, hit in enumerate(order[:cutoff], 1):
        hits += hit
        total += Fraction(hits * hit, rank)
    return total, hits


def enumerated(buckets, cutoff):
    """Exact mean, worst and best AP@R, mean zero@R, share of orders with a hit, mean P@R."""
    ap, zero, kept, precision = [], [], [], []
    found = sum(r for _, r in buckets)
    for order in orders(buckets):
        total, hits = precision_sum(order, cutoff)
        ap.append(total / min(found, cutoff))
        zero.append(total / hits if hits else Fraction(0))
        kept.append(Fraction(hits > 0))
        precision.append(Fraction(hits, cutoff))
    mean = [sum(x) / len(x) for x in (ap, zero, kept, precision)]
    return [float(v) for v in (mean[0], min(ap), max(ap), *mean[1:])]


def tiny_rankings():
    pairs = [(n, r) for n in range(4) for r in range(n + 1)]
    for buckets in product(pairs, repeat=3):
        if any(r for _, r in buckets):
            yield buckets


def test_all_tie_orders_of_all_tiny_rankings():
    """999 rankings of up to three buckets with up to three items, at every cut-off."""
    rankings = list(tiny_rankings())
    assert len(rankings) == 10**3 - 4**3
    counts = np.array(rankings)
    total, relevant = counts[:, :, 0], counts[:, :, 1]
    for cutoff in range(1, 10):
        zero, kept = expected_zero_ap(total, relevant, cutoff)
        ours = (expected_ap(total, relevant, cutoff), *ap_bounds(total, relevant, cutoff), zero, kept)
        found = np.stack([*ours, precision_at(total, relevant, cutoff)], 1)
        size = total.sum(1)
        rows = np.flatnonzero(size >= cutoff)
        exact = np.array([enumerated(rankings[i], cutoff) for i in rows])
        assert np.abs(found[rows] - exact).max() < 1e-14


def test_longer_buckets_by_enumeration():
    for buckets, cutoff in [([(9, 4)], 5), ([(8, 3), (2, 2)], 7), ([(1, 0), (7, 5), (3, 1)], 6), ([(2, 0), (8, 1)], 3)]:
        counts = np.array([buckets])
        total, relevant = counts[:, :, 0], counts[:, :, 1]
        zero, kept = expected_zero_ap(total, relevant, cutoff)
        ours = (expected_ap(total, relevant, cutoff), *ap_bounds(total, relevant, cutoff), zero, kept)
        found = [float(x[0]) for x in (*ours, precision_at(total, relevant, cutoff))]
        assert found == pytest.approx(enumerated(buckets, cutoff), abs=1e-14)


def test_relevant_first_and_last_are_no_bounds_of_zero():
    """Why `expected_zero_ap` comes without bounds: relevant last gives 1, relevant inside R gives 5/6."""
    values = {total / hits for total, hits in (precision_sum(o, 3) for o in orders([(1, 1), (3, 1)]))}
    assert values == {Fraction(1), Fraction(5, 6)}


def sample(seed, *, queries=12, items=800, bits=12, classes=5):
    """Codes with many ties, and class ids."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, bits))
    own, labels = rng.integers(0, classes, queries), rng.integers(0, classes, items)
    q = centres[own] + rng.standard_normal((queries, bits))
    d = centres[labels] + rng.standard_normal((items, bits))
    return pack(q), pack(d), labels, own


def sorted_relevance(queries, database, labels, own):
    order = hamming_distances(queries, database).argsort(1, kind="stable")
    return labels[order] == own[:, None]


@pytest.mark.parametrize("bits", [12, 64, 100])
@pytest.mark.parametrize("cutoff", [None, 1, 10, 300, 5000])
@pytest.mark.parametrize("denominator", ["relevant", "hits"])
def test_index_order_is_a_stable_sort(bits, cutoff, denominator):
    queries, database, labels, own = sample(bits, items=2500, bits=bits)
    hits = sorted_relevance(queries, database, labels, own)
    head = hits[:, :cutoff]
    precision = (head * head.cumsum(1) / np.arange(1, head.shape[1] + 1)).sum(1)
    most = np.minimum(hits.sum(1), head.shape[1]) if denominator == "relevant" else np.maximum(head.sum(1), 1)
    ap = average_precision(queries, database, Relevance(labels), own, cutoff, ties="index", denominator=denominator)
    assert np.abs(ap - precision / most).max() < 1e-12


@pytest.mark.parametrize("cutoff", [None, 40])
def test_random_orders_average_to_the_expectation(cutoff):
    queries, database, labels, own = sample(1, queries=6, items=60, bits=5)
    draws = 20_000
    distances = hamming_distances(queries, database)
    for denominator in ("relevant", "hits"):
        expected = average_precision(queries, database, Relevance(labels), own, cutoff, denominator=denominator)
        for q in range(6):
            jitter = np.random.default_rng(q).random((draws, 60)) / 2
            hits = labels[(distances[q] + jitter).argsort(1)] == own[q]
            head = hits[:, :cutoff]
            precision = (head * head.cumsum(1) / np.arange(1, head.shape[1] + 1)).sum(1)
            most = np.minimum(hits.sum(1), cutoff or 60) if denominator == "relevant" else np.maximum(head.sum(1), 1)
            error = (precision / most).std() / draws**0.5
            assert 1e-5 < error < 1e-3
            assert abs((precision / most).mean() - expected[q]) < 5 * error


def test_without_ties_all_libraries_agree():
    """Item i is i bits away, so that no two are equally far."""
    bits = 300
    database = pack(np.tri(bits + 1, bits, -1) - 0.5)
    query = pack(-np.ones((1, bits)))
    for seed in range(5):
        relevant = np.random.default_rng(seed).random(bits + 1) < 0.2
        whole = query, database, Relevance(relevant[:, None]), np.ones((1, 1), np.bool_)
        scores = bits + 1.0 - hamming_distances(query, database)[0]  # torchmetrics ignores scores that are not positive
        reference = average_precision_score(relevant, scores)
        assert average_precision(*whole)[0] == pytest.approx(reference, abs=1e-12)
        assert average_precision(*whole, ties="index")[0] == pytest.approx(reference, abs=1e-12)
        metric = retrieval_average_precision(torch.from_numpy(scores), torch.from_numpy(relevant))
        assert average_precision(*whole)[0] == pytest.approx(float(metric), abs=1e-6)
        at_20 = retrieval_average_precision(torch.from_numpy(scores), torch.from_numpy(relevant), top_k=20)
        assert average_precision(*whole, 20, denominator="hits")[0] == pytest.approx(float(at_20), abs=1e-6)


@pytest.mark.parametrize("bits", [8, 64, 128])
def test_nearest_items_are_as_far_as_faiss_says(bits):
    queries, database, _, _ = sample(7, items=3000, bits=bits)
    index = faiss.IndexBinaryFlat(bits)
    index.add(np.packbits(database.unpack() > 0, axis=1, bitorder="little"))
    theirs, _ = index.search(np.packbits(queries.unpack() > 0, axis=1, bitorder="little"), 50)
    indices, ours = topk(queries, database, 50)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(np.take_along_axis(hamming_distances(queries, database), indices, 1), theirs)


def test_chance_is_what_random_orders_score():
    rng = np.random.default_rng(0)
    ranks = np.arange(1, 201)
    for cutoff in (200, 30):
        hits = rng.permuted(np.tile(np.arange(200) < 20, (4000, 1)), axis=1)[:, :cutoff]
        values = (hits * hits.cumsum(1) / ranks[:cutoff]).sum(1) / min(20, cutoff)
        assert chance_ap(200, 20, cutoff) == pytest.approx(values.mean(), abs=5 * values.std() / 4000**0.5)


def test_harmonic_differences_are_exact_at_every_size():
    """One bucket of n - 1 irrelevant and one relevant item scores H(n) / n."""
    for n in (1, 2, 63, 64, 65, 66, 1000, 100_000):
        exact = float(np.sum(1 / np.arange(1, n + 1, dtype=np.longdouble))) / n
        assert chance_ap(n, 1) == pytest.approx(exact, rel=1e-14)


def test_auroc_is_sklearns_with_many_ties():
    rng = np.random.default_rng(0)
    for _ in range(30):
        negatives, positives = rng.integers(0, 8, rng.integers(1, 60)), rng.integers(0, 10, rng.integers(1, 60))
        truth = np.repeat([0, 1], [len(negatives), len(positives)])
        reference = roc_auc_score(truth, np.concatenate([negatives, positives]))
        assert auroc(negatives, positives) == pytest.approx(reference, abs=1e-12)


def test_tpr_is_the_best_threshold_tried():
    rng = np.random.default_rng(1)
    for _ in range(60):
        negatives, positives = rng.integers(0, 8, rng.integers(1, 40)), rng.integers(0, 10, rng.integers(1, 40))
        limit = rng.integers(0, 11) / 10
        thresholds = [*range(11), np.inf]
        best = max((positives >= t).mean() for t in thresholds if (negatives >= t).mean() <= limit)
        assert tpr_at_fpr(negatives, positives, limit) == best


def test_one_query_beside_an_ordinary_evaluation():
    """The whole path, from logits to a mean, against a transcription of the formula's definition by sorting."""
    queries, database, labels, own = sample(3)
    total, relevant = distance_histograms(queries, database, Relevance(labels), own)
    best_order = np.lexsort(
        (labels[None] != own[:, None], hamming_distances(queries, database)), axis=1
    )  # relevant items first among equals
    hits = labels[best_order] == own[:, None]
    best = (hits * hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)).sum(1) / hits.sum(1)
    assert ap_bounds(total, relevant)[1] == pytest.approx(best, abs=1e-12)

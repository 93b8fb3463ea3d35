"""What must hold for any codes, labels and cut-offs."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hashing.codes import hamming_distances, pack, topk
from hashing.ranking import (
    Relevance,
    ap_bounds,
    auroc,
    average_precision,
    distance_histograms,
    expected_ap,
    expected_zero_ap,
    leave_one_out_map,
    precision_at,
    precision_recall_curve,
    radius_precision_recall,
    tpr_at_fpr,
)

settings.register_profile("ranking", max_examples=40, deadline=None)
fast = settings.get_profile("ranking")

EPSILON = 1e-12


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of tiny calls: waking threads would cost more than the work."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@st.composite
def signs(draw, items=None, bits=None):
    items = st.integers(0, 6) if items is None else items
    shape = draw(items), draw(st.integers(1, 200) if bits is None else bits)
    return draw(arrays.arrays(np.bool_, shape))


@st.composite
def retrieval(draw):
    """Queries, database, relevance and query labels with few bits, so that ties are common."""
    bits, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    queries, items = draw(st.integers(1, 4)), draw(st.integers(1, 24))
    return (
        pack(draw(arrays.arrays(np.bool_, (queries, bits)))),
        pack(draw(arrays.arrays(np.bool_, (items, bits)))),
        draw(arrays.arrays(np.bool_, (items, classes))),
        draw(arrays.arrays(np.bool_, (queries, classes))),
    )


@st.composite
def histogram_pair(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    relevant = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 9)))
    return relevant + draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 9))), relevant


cutoffs = st.none() | st.integers(1, 40)
scores = st.lists(st.integers(-3, 6), min_size=1, max_size=20).map(np.array)


@fast
@given(signs())
def test_packing_is_undone_by_unpacking(x):
    assert np.array_equal(pack(x).unpack(), np.where(x, 1, -1))
    assert np.array_equal(pack(pack(x).unpack()).words, pack(x).words)


@fast
@given(st.data(), st.integers(1, 200))
def test_distance_is_the_number_of_differing_bits(data, bits):
    q = data.draw(signs(st.integers(0, 3), st.just(bits)))
    d = data.draw(signs(st.integers(1, 5), st.just(bits)))
    differing = (q[:, None] ^ d).sum(2)
    assert np.array_equal(hamming_distances(pack(q), pack(d)), differing)
    indices, distances = topk(pack(q), pack(d), len(d))
    assert np.array_equal(indices, differing.argsort(1, kind="stable"))
    assert np.array_equal(distances, np.sort(differing, 1))


@fast
@given(retrieval(), cutoffs)
def test_backends_give_the_same_integers_and_orders(case, cutoff):
    q, d, labels, own = case
    orders, nearest = (
        [
            average_precision(q, d, Relevance(labels), own, cutoff, ties="index", backend=backend)
            for backend in ("numba", "torch")
        ],
        [topk(q, d, cutoff or 9, backend=backend) for backend in ("numba", "torch")],
    )
    np.testing.assert_allclose(*orders, rtol=0, atol=EPSILON)
    assert all(np.array_equal(*both) for both in zip(*nearest, strict=True))
    numba = distance_histograms(q, d, Relevance(labels), own, backend="numba")
    torch = distance_histograms(q, d, Relevance(labels), own, backend="torch")
    assert np.array_equal(numba, torch)
    assert (numba[0].sum(1) == len(d)).all()
    assert np.array_equal(numba[1].sum(1), Relevance(labels).of(own).sum(1))


@fast
@given(retrieval(), cutoffs, st.randoms(use_true_random=False))
def test_expectations_do_not_depend_on_the_database_order(case, cutoff, random):
    q, d, labels, own = case
    order = np.array(random.sample(range(len(d)), len(d)))
    for denominator in ("relevant", "hits"):
        a = average_precision(q, d, Relevance(labels), own, cutoff, denominator=denominator)
        b = average_precision(q, d.select(order), Relevance(labels[order]), own, cutoff, denominator=denominator)
        assert np.array_equal(a, b, equal_nan=True)


@fast
@given(retrieval(), cutoffs)
def test_bounds_enclose_the_expectation_and_the_index_order(case, cutoff):
    q, d, labels, own = case
    worst, best = ap_bounds(*distance_histograms(q, d, Relevance(labels), own), cutoff)
    for ties in ("expected", "index"):
        ap = average_precision(q, d, Relevance(labels), own, cutoff, ties=ties)
        known = ~np.isnan(ap)
        assert np.array_equal(known, Relevance(labels).of(own).any(1))
        assert (worst[known] - EPSILON <= ap[known]).all()
        assert (ap[known] <= best[known] + EPSILON).all()
        assert ((ap[known] >= 0) & (ap[known] <= 1 + EPSILON)).all()


@fast
@given(retrieval(), st.integers(1, 30))
def test_hits_denominator_is_never_the_larger(case, cutoff):
    q, d, labels, own = case
    relevant, hits = (
        average_precision(q, d, Relevance(labels), own, cutoff, ties="index", denominator=x)
        for x in ("relevant", "hits")
    )
    known = ~np.isnan(hits)
    assert np.array_equal(np.isnan(relevant), ~known)
    assert (hits[known] >= relevant[known] - EPSILON).all()
    nearest, _ = topk(q, d, cutoff)
    found = np.take_along_axis(Relevance(labels).of(own), nearest, 1).any(1)
    assert np.array_equal(hits[known] > 0, found[known])


@fast
@given(histogram_pair(), cutoffs)
def test_values_from_histograms_are_in_order(pair, cutoff):
    total, relevant = pair
    worst, best = ap_bounds(total, relevant, cutoff)
    value, kept = expected_zero_ap(total, relevant, cutoff)
    known = relevant.sum(1) > 0
    assert (worst[known] <= best[known] + EPSILON).all()
    assert ((kept >= 0) & (kept <= 1 + EPSILON)).all()
    assert (value[known] <= kept[known] + EPSILON).all()
    assert (value[known] >= expected_ap(total, relevant, cutoff)[known] - EPSILON).all()


@fast
@given(histogram_pair())
def test_recall_and_expected_hits_grow(pair):
    total, relevant = pair
    radii = [radius_precision_recall(total, relevant, r) for r in range(total.shape[1] + 1)]
    known = relevant.sum(1) > 0
    recall = np.array([r[1] for r in radii])[:, known]
    assert (np.diff(recall, axis=0) >= 0).all()
    assert (recall[-1] == 1).all()
    assert all((e == (total[:, : r + 1].sum(1) == 0)).all() for r, (_, _, e) in enumerate(radii))
    size = int(total.sum(1).min())
    hits = [np.zeros(len(total)), *(precision_at(total, relevant, n) * n for n in range(1, size + 1))]
    growth = np.diff(hits, axis=0)
    assert ((growth >= -EPSILON) & (growth <= 1 + EPSILON)).all()


@fast
@given(histogram_pair())
def test_the_curve_is_the_mean_over_radii(pair):
    total, relevant = pair
    known = relevant.sum(1) > 0
    precision, recall = precision_recall_curve(total, relevant)
    for radius in range(total.shape[1]):
        p, r, _ = radius_precision_recall(total, relevant, radius)
        if known.any():
            assert np.isclose(precision[radius], p[known].mean(), atol=EPSILON)
            assert np.isclose(recall[radius], r[known].mean(), atol=EPSILON)


@fast
@given(signs(st.integers(2, 12), st.integers(1, 4)), st.data())
def test_leave_one_out_is_one_query_at_a_time(x, data):
    labels = data.draw(arrays.arrays(np.int64, len(x), elements=st.integers(0, 3)))
    codes, values = pack(x), []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        one = codes.select(slice(i, i + 1)), codes.select(others), Relevance(labels[others]), labels[i : i + 1]
        values.append(average_precision(*one)[0])
    values = [v for v in values if not np.isnan(v)]
    found = leave_one_out_map(codes, labels)
    assert np.isclose(found, np.mean(values), atol=EPSILON) if values else np.isnan(found)


@fast
@given(scores, scores, st.floats(0, 1))
def test_detection_rates(negatives, positives, limit):
    pairs = (positives[:, None] > negatives).mean() + (positives[:, None] == negatives).mean() / 2
    assert np.isclose(auroc(negatives, positives), pairs, atol=EPSILON)
    assert np.isclose(auroc(negatives, positives) + auroc(positives, negatives), 1, atol=EPSILON)
    thresholds = [*np.unique(negatives), *np.unique(positives), np.inf]
    best = max((positives >= t).mean() for t in thresholds if (negatives >= t).mean() <= limit)
    assert tpr_at_fpr(negatives, positives, limit) == best

"""Worked cases, edges and refusals of the ranking metrics."""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np
import pytest

from hashing import ranking
from hashing.codes import PackedCodes, pack, topk
from hashing.ranking import (
    Relevance,
    ap_bounds,
    auroc,
    average_precision,
    chance_ap,
    distance_histograms,
    expected_ap,
    expected_zero_ap,
    leave_one_out_map,
    mean_drop_ap,
    precision_at,
    precision_recall_curve,
    radius_precision_recall,
    tpr_at_fpr,
)

# Buckets (n, r) from near to far; R; E[AP@R]; worst, best; E[zero@R]; kept (METHODOLOGY.md#ties, METHODOLOGY.md#zeror).
WORKED = [
    ([(2, 1), (3, 2)], None, Fraction(181, 270), Fraction(8, 15), Fraction(29, 36), Fraction(181, 270), Fraction(1)),
    ([(2, 1), (3, 2)], 3, Fraction(43, 108), Fraction(1, 6), Fraction(5, 9), Fraction(13, 18), Fraction(1)),
    (
        [(1, 0), (2, 2), (4, 1)],
        5,
        Fraction(361, 720),
        Fraction(7, 18),
        Fraction(23, 36),
        Fraction(431, 720),
        Fraction(1),
    ),
    ([(4, 2)], 2, Fraction(5, 12), Fraction(0), Fraction(1), Fraction(2, 3), Fraction(5, 6)),
    ([(3, 0), (3, 1)], 4, Fraction(1, 12), Fraction(0), Fraction(1, 4), Fraction(1, 12), Fraction(1, 3)),
    ([(4, 1)], None, Fraction(25, 48), Fraction(1, 4), Fraction(1), Fraction(25, 48), Fraction(1)),
]


def histograms(*queries):
    """(total, relevant) from buckets (n, r)."""
    both = np.array(queries)
    return both[:, :, 0], both[:, :, 1]


def codes_of(buckets):
    """A query of zero bits and a database with these buckets."""
    bits = max(len(buckets) - 1, 1)
    rows = [[1.0] * d + [-1.0] * (bits - d) for d, (n, _) in enumerate(buckets) for _ in range(n)]
    relevant = np.concatenate([np.arange(n) < r for n, r in buckets])
    return pack(-np.ones((1, bits))), pack(np.array(rows)), Relevance(relevant[:, None]), np.ones((1, 1), np.bool_)


@pytest.mark.parametrize(("buckets", "cutoff", "expected", "worst", "best", "zero", "kept"), WORKED)
def test_worked_cases(buckets, cutoff, expected, worst, best, zero, kept):
    counts = histograms(buckets)
    values = (expected_ap(*counts, cutoff), *ap_bounds(*counts, cutoff), *expected_zero_ap(*counts, cutoff))
    assert [float(v[0]) for v in values] == pytest.approx(
        [float(f) for f in (expected, worst, best, zero, kept)], abs=1e-15
    )
    whole = codes_of(buckets)
    assert average_precision(*whole, cutoff)[0] == pytest.approx(float(expected), abs=1e-15)
    assert average_precision(*whole, cutoff, denominator="hits")[0] == pytest.approx(float(zero), abs=1e-15)


def test_worked_cases_together_equal_each_alone():
    """Empty buckets, wherever they are, change nothing."""
    queries = [[(0, 0), *b, *[(0, 0)] * (4 - len(b))] for b, *_ in WORKED]
    counts = histograms(*queries)
    for cutoff in (None, 1, 2, 3, 4, 100):
        alone = [expected_zero_ap(*histograms(b), cutoff)[0][0] for b, *_ in WORKED]
        assert expected_zero_ap(*counts, cutoff)[0] == pytest.approx(alone, abs=1e-15)


def test_no_relevant_item_is_undefined_and_not_zero():
    counts = histograms([(2, 0), (3, 0)], [(2, 0), (3, 3)])
    for value in (expected_ap(*counts, 2), *ap_bounds(*counts, 2), expected_zero_ap(*counts, 2)[0]):
        assert np.isnan(value).tolist() == [True, False]
    assert expected_zero_ap(*counts, 2)[1].tolist() == [0, 0]
    assert precision_at(*counts, 3).tolist() == [0, pytest.approx(1 / 3)]
    precision, recall, empty = radius_precision_recall(*counts, 0)
    assert precision.tolist() == [0, 0]
    assert np.isnan(recall).tolist() == [True, False]
    assert not empty.any()
    codes = pack(np.ones((2, 4)))
    labels = Relevance(np.array([1, 1]))
    for ties in ("expected", "index"):
        for denominator in ("relevant", "hits"):
            ap = average_precision(codes, codes, labels, np.array([0, 1]), ties=ties, denominator=denominator)
            assert np.isnan(ap[0])
            assert ap[1] == 1


def test_everything_relevant_is_perfect():
    counts = histograms([(2, 2), (0, 0), (1, 1), (7, 7)])
    for cutoff in (None, 1, 3, 5, 99):
        values = (expected_ap(*counts, cutoff), *ap_bounds(*counts, cutoff), *expected_zero_ap(*counts, cutoff))
        assert [float(v[0]) for v in values] == pytest.approx([1] * 5, abs=1e-15)


def test_collapsed_codes_score_at_chance():
    counts = histograms([(30_000, 3_000), (0, 0)])
    assert expected_ap(*counts)[0] == chance_ap(30_000, 3_000) == pytest.approx(0.1003, abs=5e-5)
    harmonic = sum(Fraction(1, i) for i in range(1, 51))
    a = Fraction(9, 49)
    assert chance_ap(50, 10) == pytest.approx(float(((1 - a) * harmonic + a * 50) / 50), abs=1e-15)
    assert np.isnan(chance_ap(5, 0))


def test_single_items_per_bucket_give_the_plain_average_precision():
    counts = histograms([(1, 1), (1, 0), (1, 1), (1, 1), (1, 0)])
    for value in (expected_ap(*counts), *ap_bounds(*counts), expected_zero_ap(*counts)[0]):
        assert value[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)


def test_a_cutoff_beyond_the_database_is_no_cutoff():
    counts = histograms([(2, 1), (3, 2)])
    for cutoff in (5, 6, 10**9):
        assert expected_ap(*counts, cutoff) == expected_ap(*counts)
        assert expected_zero_ap(*counts, cutoff)[0] == expected_zero_ap(*counts)[0]
        assert precision_at(*counts, cutoff)[0] == pytest.approx(3 / 5)


def test_a_cutoff_at_the_border_of_a_bucket_ignores_what_is_behind():
    near, same = histograms([(2, 1), (3, 2), (4, 4)]), histograms([(2, 1), (3, 2), (9, 4)])
    for function in (expected_ap, lambda *x: expected_zero_ap(*x)[0], precision_at):
        assert function(*near, 5)[0] == function(*same, 5)[0]
    assert expected_zero_ap(*near, 5)[0][0] == pytest.approx(181 / 270, abs=1e-15)
    assert expected_ap(*near, 5)[0] == pytest.approx(181 / 270 * 3 / 5, abs=1e-15)


def test_drop_is_a_ratio_of_expectations():
    counts = histograms([(4, 2), (0, 0)], [(3, 0), (3, 1)], [(6, 0), (0, 0)])
    value, kept = expected_zero_ap(*counts, 2)
    assert mean_drop_ap(value, kept) == pytest.approx((2 / 3) / (5 / 6), abs=1e-15)
    assert np.isnan(mean_drop_ap(value[1:], kept[1:]))


def test_precision_at_inside_a_bucket_is_an_expectation():
    counts = histograms([(2, 1), (3, 2)])
    assert [precision_at(*counts, n)[0] for n in (1, 2, 3, 5)] == pytest.approx([1 / 2, 1 / 2, (1 + 2 / 3) / 3, 3 / 5])


def test_radius_and_curve():
    counts = histograms([(0, 0), (2, 1), (2, 1)], [(1, 1), (0, 0), (3, 0)], [(4, 0), (0, 0), (0, 0)])
    precision, recall, empty = radius_precision_recall(*counts, 0)
    assert precision.tolist() == [0, 1, 0]
    assert recall[:2].tolist() == [0, 1]
    assert empty.tolist() == [True, False, False]
    assert radius_precision_recall(*counts, 99)[0].tolist() == [1 / 2, 1 / 4, 0]
    precision, recall = precision_recall_curve(*counts)  # the third query has nothing to find
    assert precision.tolist() == [1 / 2, 3 / 4, 3 / 8]
    assert recall.tolist() == [1 / 2, 3 / 4, 1]
    assert all(np.isnan(x).all() for x in precision_recall_curve(counts[0][2:], counts[1][2:]))


def test_hits_denominator_of_one_order_tells_no_hit_from_nothing_to_find():
    near, far = [-1.0] * 3, [1.0] * 3
    query, database = pack(np.array([near] * 3)), pack(np.array([near, near, far]))
    ap = average_precision(
        query, database, Relevance(np.array([0, 1, 2])), np.array([1, 2, 3]), 2, ties="index", denominator="hits"
    )
    assert ap[:2].tolist() == [1 / 2, 0]
    assert np.isnan(ap[2])


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("items", [1, 63, 64, 65, 2048, 2051])
def test_histograms_count_every_item(backend, items):
    rng = np.random.default_rng(items)
    queries, database = pack(rng.standard_normal((4, 20))), pack(rng.standard_normal((items, 20)))
    labels, own = rng.random((items, 5)) < 0.2, rng.random((4, 5)) < 0.4
    total, relevant = distance_histograms(queries, database, Relevance(labels), own, backend=backend)
    distance = (queries.unpack()[:, None] != database.unpack()).sum(2)
    shares = (own[:, None] & labels).any(2)
    assert np.array_equal(Relevance(labels).of(own), shares)
    for q in range(4):
        assert np.array_equal(total[q], np.bincount(distance[q], minlength=21))
        assert np.array_equal(relevant[q], np.bincount(distance[q][shares[q]], minlength=21))


def test_results_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(2)
    queries, database = pack(rng.standard_normal((7, 24))), pack(rng.standard_normal((3000, 24)))
    labels, own = Relevance(rng.integers(0, 3, 3000)), rng.integers(0, 3, 7)
    before = numba.get_num_threads()
    try:
        results = []
        for threads in {1, before}:
            numba.set_num_threads(threads)
            index = average_precision(queries, database, labels, own, 100, ties="index")
            results.append((*distance_histograms(queries, database, labels, own), index, *topk(queries, database, 9)))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(results[0], results[-1], strict=True))


def test_labels_beyond_the_64th_count():
    labels = np.zeros((3, 130), np.bool_)
    labels[0, 129] = labels[1, 64] = labels[2, 0] = True
    queries = np.zeros((2, 130), np.bool_)
    queries[0, [64, 129]] = queries[1, 1] = True
    assert Relevance(labels).of(queries).tolist() == [[True, True, False], [False, False, False]]
    codes = pack(np.ones((3, 4)))
    for backend in ("numba", "torch"):
        _, relevant = distance_histograms(codes.select(slice(2)), codes, Relevance(labels), queries, backend=backend)
        assert relevant[:, 0].tolist() == [2, 0]


def test_class_ids_and_one_hot_labels_agree():
    rng = np.random.default_rng(0)
    queries, database = pack(rng.standard_normal((9, 16))), pack(rng.standard_normal((70, 16)))
    ids, own = rng.integers(0, 7, 70), rng.integers(0, 7, 9).astype(np.uint8)
    one_hot = ids[:, None] == np.arange(7)
    a = average_precision(queries, database, Relevance(ids), own)
    assert np.array_equal(a, average_precision(queries, database, Relevance(one_hot), own))
    assert np.array_equal(a, average_precision(queries, database, Relevance(one_hot), own[:, None] == np.arange(7)))


def test_a_class_that_the_database_lacks_has_no_relevant_item():
    codes = pack(np.ones((2, 4)))
    assert np.isnan(average_precision(codes, codes, Relevance(np.array([0, 0])), np.array([5, 1]))).all()


def test_labels_of_any_layout_are_accepted():
    labels = np.asfortranarray(np.random.default_rng(0).random((130, 6)) < 0.5)
    labels.flags.writeable = False
    own = labels[::40, ::-1]
    assert np.array_equal(Relevance(labels[:, ::-1]).of(own), (own[:, None] & labels[:, ::-1]).any(2))


def test_duplicated_queries_have_equal_values():
    rng = np.random.default_rng(3)
    database, labels = pack(rng.standard_normal((300, 24))), rng.integers(0, 4, 300)
    query = pack(np.repeat(rng.standard_normal((1, 24)), 5, 0))
    for ties in ("expected", "index"):
        assert len(set(average_precision(query, database, Relevance(labels), np.full(5, 2), 50, ties=ties))) == 1


def test_no_query_gives_no_value():
    codes, labels = pack(np.ones((3, 4))), np.array([0, 1, 1])
    none = codes.select(slice(0))
    for ties in ("expected", "index"):
        for denominator in ("relevant", "hits"):
            ap = average_precision(none, codes, Relevance(labels), labels[:0], 2, ties=ties, denominator=denominator)
            assert ap.shape == (0,)
    assert distance_histograms(none, codes, Relevance(labels), labels[:0], backend="torch")[0].shape == (0, 5)


def test_leave_one_out_excludes_the_item_itself():
    assert leave_one_out_map(pack(np.ones((4, 8))), np.zeros(4, np.int64)) == 1
    far = pack(np.array([[1.0, 1, 1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]]))
    # Others by distance, relevant marked: item 0 -> 1, 2*, 3; item 2 -> {1, 3}, 0*; the rest share nothing.
    assert leave_one_out_map(far, np.array([0, 1, 0, 2])) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert np.isnan(leave_one_out_map(far, np.arange(4)))
    unlabelled = np.array([[True], [False], [True], [False]])
    assert leave_one_out_map(far, unlabelled) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_large_counts_lose_no_digits():
    """Two relevant items behind a million others, against exact sums: a table of H in float64 would keep six digits."""
    total, relevant = histograms([(1_000_000, 0), (2, 2), (7, 0)])
    exact = (Fraction(1, 1_000_001) + Fraction(2, 1_000_002)) / 2
    assert expected_ap(total, relevant)[0] == pytest.approx(float(exact), rel=1e-9)
    assert ap_bounds(total, relevant)[0][0] == pytest.approx(float(exact), rel=1e-9)


def test_many_hypergeometric_outcomes_fit_in_batches():
    total, relevant = np.full((5, 1), 1_000_000), np.full((5, 1), 500_000)
    value, kept = expected_zero_ap(total, relevant, 400_000)
    assert value == pytest.approx(np.full(5, 0.5), abs=1e-4)
    assert kept == pytest.approx(np.ones(5), abs=1e-12)
    assert (kept <= 1).all()


def test_batches_cover_all_rows_within_the_limit():
    sizes = np.array([3, 3, 1, 9, 1, 1, 1, 4])
    parts = list(ranking.row_batches(sizes, limit=6))
    assert np.array_equal(np.concatenate([np.arange(8)[p] for p in parts]), np.arange(8))
    assert all(sizes[p].sum() <= 6 + sizes[p].max() for p in parts)
    assert len(list(ranking.row_batches(np.full(4, 1 << 20)))) == 4
    assert not list(ranking.row_batches(sizes[:0]))


def test_auroc_counts_ties_half():
    assert auroc(np.array([1, 2, 2]), np.array([2, 3])) == pytest.approx((1 + 0.5 + 0.5 + 3) / 6)
    assert auroc(np.zeros(4), np.zeros(3)) == 0.5
    assert auroc(np.array([-np.inf, 0.0]), np.array([np.inf])) == 1


def test_tpr_does_not_interpolate():
    negatives, positives = np.array([0, 1, 1, 2]), np.array([1, 1, 2, 3])
    # thresholds: above 2 -> (0, 1/4); 2 -> (1/4, 2/4); 1 -> (3/4, 1); 0 -> (1, 1)
    rates = [(0.0, 1 / 4), (0.24, 1 / 4), (0.25, 1 / 2), (0.74, 1 / 2), (0.75, 1.0), (1.0, 1.0)]
    for limit, tpr in rates:
        assert tpr_at_fpr(negatives, positives, limit) == tpr
    assert tpr_at_fpr(np.zeros(5), np.zeros(5), 0.99) == 0
    assert tpr_at_fpr(np.arange(100), np.arange(100) + 0.5, 0.29) == 0.3  # 0.29 * 100 falls short of 29


def test_score_refusals():
    for function in (auroc, lambda n, p: tpr_at_fpr(n, p, 0.1)):
        with pytest.raises(ValueError, match="0 negatives"):
            function(np.zeros(0), np.ones(1))
        with pytest.raises(ValueError, match="0 positives"):
            function(np.zeros(1), np.ones(0))
        with pytest.raises(ValueError, match="NaN"):
            function(np.zeros(1), np.array([np.nan]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        tpr_at_fpr(np.zeros(1), np.ones(1), 1.5)


def test_refusals_say_what_does_not_fit():
    codes: PackedCodes = pack(np.ones((3, 4)))
    multi, ids = np.ones((3, 2), np.bool_), np.zeros(3, np.int64)
    cases = [
        (codes, pack(np.ones((3, 5))), multi, multi, "queries have 4 bits and the database has 5"),
        (codes, pack(np.ones((0, 4))), multi[:0], multi, "the database is empty"),
        (codes, codes, multi, np.ones((3, 3), np.bool_), "queries have 3 labels and the database has 2"),
        (codes, codes, multi, ids + 2, "query class 2 is not among the database's 2 labels"),
        (codes, codes, multi[:2], multi, "the database has 3 codes and labels for 2"),
        (codes, codes, multi, multi[:2], "there are 3 query codes and labels for 2"),
        (codes, codes, ids, ids - 1, "negative"),
    ]
    for queries, database, labels, own, message in cases:
        for function in (distance_histograms, average_precision):
            with pytest.raises(ValueError, match=message):
                function(queries, database, Relevance(labels), own)
        with pytest.raises(ValueError, match=message):
            average_precision(queries, database, Relevance(labels), own, ties="index")
    with pytest.raises(ValueError, match="negative"):
        Relevance(ids - 1)
    with pytest.raises(ValueError, match="cuda"):
        distance_histograms(codes, codes, Relevance(ids), ids, backend="numba", device="cuda")
    with pytest.raises(ValueError, match="cut-off"):
        average_precision(codes, codes, Relevance(ids), ids, 0, ties="index")


def test_histogram_refusals():
    total, relevant = histograms([(2, 1), (3, 2)])
    for function in (expected_ap, ap_bounds, expected_zero_ap, precision_at):
        with pytest.raises(ValueError, match="at least 1"):
            function(total, relevant, 0)
        with pytest.raises(ValueError, match="order"):
            function(relevant, total, 2)
    with pytest.raises(ValueError, match="negative"):
        radius_precision_recall(total, relevant, -1)

"""Ranking metrics in expectation over all orders of items at equal distances.

They need two histograms per query: the number of items and of relevant items at each distance. Formulas and worked
cases: METHODOLOGY.md#ties. A bucket holds the n items at one distance, r of them relevant; N items and R' relevant
items are nearer; m of the n items are inside the cut-off R. The bucket's expected share of the sum of precisions is

    S(N, R', n, r, m) = r/n [(R' + 1 - a(N+1)) (H(N+m) - H(N)) + a m],   a = (r-1)/(n-1),  H harmonic numbers.

Importing this module imports neither torch nor numba. Axes: q queries, m items, k classes, d = bits + 1 distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, Num, UInt64

from hashing.codes import Backend, PackedCodes, check_pair, kernels

__all__ = [
    "Denominator", "Relevance", "Ties", "ap_bounds", "auroc", "average_precision", "chance_ap", "distance_histograms",
    "expected_ap", "expected_zero_ap", "leave_one_out_ap", "leave_one_out_map", "mean_drop_ap", "precision_at",
    "precision_recall_curve", "radius_precision_recall", "tpr_at_fpr",
]  # fmt: skip

Ties = Literal["expected", "index"]
Denominator = Literal["relevant", "hits"]
Histogram = Integer[np.ndarray, "q d"]
PerQuery = Float64[np.ndarray, " q"]
LabelArray = Bool[np.ndarray, "n k"] | Integer[np.ndarray, " n"]

ROWS = 1 << 17  # entries of histograms per evaluation step
EXACT_HARMONICS = 64  # beyond it five terms of the asymptotic series are exact in float64


class Relevance:
    """Relevant items of a database: those that share at least one label with the query.

    maps: for each label a bit map over the items (bit j % 64 of word j // 64); k x m bits for any number of queries.
    With class ids, only ids that occur in the database have a map.
    """

    maps: UInt64[np.ndarray, "k g"]

    def __init__(self, labels: LabelArray) -> None:
        """`labels` of the database: multi-hot [m, k], or class ids [m] (any number of classes)."""
        if labels.ndim == 2:
            items, found = np.nonzero(labels)
            self._classes, self._ids = labels.shape[1], None
        else:
            self._ids, found = np.unique(_class_ids(labels), return_inverse=True)
            items, self._classes = np.arange(len(labels)), len(self._ids)
        self._items = len(labels)
        maps = np.zeros((self._classes, -(-self._items // 64)), np.uint64)
        np.bitwise_or.at(maps, (found, items // 64), np.uint64(1) << (items % 64).astype(np.uint64))
        maps.flags.writeable = False
        self.maps = maps

    def __len__(self) -> int:
        return self._items

    def encode(self, query_labels: LabelArray) -> Bool[np.ndarray, "n k"]:
        """Multi-hot rows of the queries over the labels of this database."""
        if query_labels.ndim == 2:
            if query_labels.shape[1] != self._classes:
                raise ValueError(f"queries have {query_labels.shape[1]} labels and the database has {self._classes}")
            return query_labels.astype(np.bool_)
        ids = _class_ids(query_labels)
        known = np.arange(self._classes) if self._ids is None else self._ids
        if self._ids is None and ids.max(initial=-1) >= self._classes:
            raise ValueError(f"query class {ids.max()} is not among the database's {self._classes} labels")
        return np.asarray(ids[:, None] == known)

    def members(self, items: slice) -> Bool[np.ndarray, "k m"]:
        """For each label and each of `items`: whether the item has it. The slice must start at a multiple of 64."""
        start, stop, _ = items.indices(self._items)
        nbytes = self.maps[:, start // 64 :].astype("<u8", order="C").view(np.uint8)
        return np.unpackbits(nbytes, axis=1, count=stop - start, bitorder="little").astype(np.bool_)

    def of(self, query_labels: LabelArray) -> Bool[np.ndarray, "q m"]:
        """The relevance matrix, for inspection; the metrics never build it."""
        own = self.encode(query_labels).astype(np.float32)
        return own @ self.members(slice(None)).astype(np.float32) > 0


def distance_histograms(
    queries: PackedCodes,
    database: PackedCodes,
    relevance: Relevance,
    query_labels: LabelArray,
    *,
    backend: Backend = "auto",
    device: str = "cpu",
) -> tuple[Int64[np.ndarray, "q d"], Int64[np.ndarray, "q d"]]:
    """Items and relevant items at each distance from each query: (total, relevant).

    auto: numba on the CPU; torch on other devices or if numba is missing. All back ends return the same integers.
    """
    encoded = _check(queries, database, relevance, query_labels)
    first, same = queries.distinct(encoded)
    asked, labels = queries.select(first), encoded[first]
    total, relevant = kernels(backend, device).distance_counts(asked, database, relevance.maps, labels, device)
    return total[same], relevant[same]


def average_precision(
    queries: PackedCodes,
    database: PackedCodes,
    relevance: Relevance,
    query_labels: LabelArray,
    cutoff: int | None = None,
    *,
    ties: Ties = "expected",
    denominator: Denominator = "relevant",
    backend: Backend = "auto",
    device: str = "cpu",
) -> PerQuery:
    """AP of each query over the first `cutoff` items (None: all); NaN for queries without a relevant item.

    ties: "expected" averages over all orders of equal distances; "index" uses the order by (distance, index).
    denominator of the sum of precisions at the hits: "relevant" is min(relevant items, cutoff). "hits", as in the
    papers, is the number of hits among the first `cutoff`; the value is then 0 if and only if there is no hit, so
    zero@R is the mean and, for ties="index", drop@R the mean of the positive values (`mean_drop_ap` in expectation).
    """
    if ties not in get_args(Ties) or denominator not in get_args(Denominator):
        raise ValueError(f"ties is one of {get_args(Ties)} and denominator of {get_args(Denominator)}")
    encoded = _check(queries, database, relevance, query_labels)
    first, same = queries.distinct(encoded)
    queries, encoded = queries.select(first), encoded[first]
    back_end = kernels(backend, device)
    if ties == "expected":
        both = back_end.distance_counts(queries, database, relevance.maps, encoded, device)
        values = np.empty(len(queries))
        step = max(1, ROWS // (queries.bits + 1))
        for start in range(0, len(queries), step):
            total, relevant = (x[start : start + step] for x in both)
            if denominator == "hits":
                values[start : start + step] = expected_zero_ap(total, relevant, cutoff)[0]
            else:
                values[start : start + step] = expected_ap(total, relevant, cutoff)
        return np.asarray(values[same])
    if cutoff is not None and cutoff < 1:
        raise ValueError(f"a cut-off is at least 1, not {cutoff}")
    ranks = len(database) if cutoff is None else min(cutoff, len(database))
    sums = back_end.index_order_sums(queries, database, relevance.maps, encoded, ranks, device)
    precision, hits, found = (one[same] for one in sums)
    if denominator == "relevant":
        return _ratio(precision, np.minimum(found, ranks))
    return np.where(found > 0, _ratio(precision, hits, empty=0.0), np.nan)


def leave_one_out_ap(codes: PackedCodes, labels: LabelArray) -> PerQuery:
    """Expected AP of each item as query for the others; NaN for items without a relevant other."""
    relevance = Relevance(labels)
    total, relevant = distance_histograms(codes, codes, relevance, labels)
    total[:, 0] -= 1
    relevant[:, 0] -= relevance.encode(labels).any(1)
    return expected_ap(total, relevant)


def leave_one_out_map(codes: PackedCodes, labels: LabelArray) -> float:
    """Mean of `leave_one_out_ap`. Items without a relevant other are left out; NaN if all are."""
    ap = leave_one_out_ap(codes, labels)
    return float(ap[~np.isnan(ap)].mean()) if not np.isnan(ap).all() else float("nan")


def expected_ap(total: Histogram, relevant: Histogram, cutoff: int | None = None) -> PerQuery:
    """E[AP@R] over the orders of equal distances: sum of S / min(relevant items, R); NaN without relevant items."""
    buckets = _Buckets.of(total, relevant, cutoff)
    return _ratio(buckets.shares().sum(1), buckets.most_hits)


def ap_bounds(total: Histogram, relevant: Histogram, cutoff: int | None = None) -> tuple[PerQuery, PerQuery]:
    """AP@R for the worst and the best order of equal distances; denominator as in `expected_ap`.

    best: sum of (R'+i)/(N+i) for i = 1..min(r, m). worst: of (R'+i)/(N+n-r+i) for i = 1..max(0, m-(n-r)).
    """
    b = _Buckets.of(total, relevant, cutoff)
    worst = _run(b.nearer + b.n - b.r, b.nearer_relevant, np.maximum(0, b.m - (b.n - b.r)))
    best = _run(b.nearer, b.nearer_relevant, np.minimum(b.r, b.m))
    return _ratio(worst.sum(1), b.most_hits), _ratio(best.sum(1), b.most_hits)


def expected_zero_ap(total: Histogram, relevant: Histogram, cutoff: int | None = None) -> tuple[PerQuery, PerQuery]:
    """The papers' AP@R, divided by the hits among the first R (0 if none), in expectation: (value, kept = P(hits > 0)).

    Hits x in the bucket that holds rank R are hypergeometric, P(x) = C(r,x) C(n-r,m-x) / C(n,m); F is the sum of S
    before it; value = sum of P(x) (F + S(N, R', m, x, m)) / (R' + x) over R' + x > 0. There are no bounds, because
    "relevant first" and "relevant last" are not the extremes. Without relevant items the value is NaN and kept is 0.
    """
    b = _Buckets.of(total, relevant, cutoff)
    rows = np.arange(len(b.n))
    last = (b.nearer + b.n >= b.cutoff[:, None]).argmax(1)  # the bucket that holds rank R
    nearer, hits, n, r, m = (x[rows, last] for x in (b.nearer, b.nearer_relevant, b.n, b.r, b.m))
    before = np.where(np.arange(b.n.shape[1]) < last[:, None], b.shares(), 0).sum(1)
    low, high = np.maximum(0, m - (n - r)), np.minimum(r, m)
    value, kept = np.empty((2, len(rows)))
    for part in row_batches(high - low + 1):
        sizes = (high - low + 1)[part]
        starts = sizes.cumsum() - sizes
        of = np.repeat(rows[part], sizes)
        x = np.arange(len(of)) - np.repeat(starts, sizes) + low[of]
        chance = _hypergeometric(x, counts=(n[of], r[of], m[of]), starts=starts, sizes=sizes)
        found = hits[of] + x
        precision = before[of] + _share(nearer[of], hits[of], m[of], x, m[of])
        value[part] = np.add.reduceat(chance * _ratio(precision, found, empty=0.0), starts)
        kept[part] = np.minimum(np.add.reduceat(chance * (found > 0), starts), 1)
    return np.where(b.found > 0, value, np.nan), kept


def mean_drop_ap(value: PerQuery, kept: PerQuery) -> float:
    """drop@R of the papers, which leaves out queries without a hit: sum of values / sum of kept, or NaN if kept is 0.

    The arguments are the results of `expected_zero_ap`.
    """
    mass = float(kept.sum())
    return float(np.nansum(value)) / mass if mass > 0 else float("nan")


def precision_at(total: Histogram, relevant: Histogram, n: int) -> PerQuery:
    """E[P@N] = (R' + m r/n) / N at the bucket that holds rank N; N is at most the size of the database."""
    b = _Buckets.of(total, relevant, n)
    return _ratio((b.r * _ratio(b.m, b.n, empty=0.0)).sum(1), b.cutoff)


def radius_precision_recall(
    total: Histogram, relevant: Histogram, radius: int
) -> tuple[PerQuery, PerQuery, Bool[np.ndarray, " q"]]:
    """(precision, recall, empty) within `radius`; precision of empty balls is 0, recall without relevant items NaN."""
    if radius < 0:
        raise ValueError(f"a radius is not negative: {radius}")
    b = _Buckets.of(total, relevant, None)
    items, found = b.n[:, : radius + 1].sum(1), b.r[:, : radius + 1].sum(1)
    return _ratio(found, items, empty=0.0), _ratio(found, b.found), items == 0


def precision_recall_curve(
    total: Histogram, relevant: Histogram
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """(precision, recall) within radius 0..bits: means over queries with relevant items; empty balls: precision 0."""
    b = _Buckets.of(total, relevant, None)
    items, found, every = (x[b.found > 0] for x in (b.n.cumsum(1), b.r.cumsum(1), b.found))
    queries = np.full(b.n.shape[1], len(every))
    return _ratio(_ratio(found, items, empty=0.0).sum(0), queries), _ratio((found / every[:, None]).sum(0), queries)


def chance_ap(items: int, relevant: int, cutoff: int | None = None) -> float:
    """Expected AP@R of a random order (one bucket with all items): ((1-a) H(n) + a n) / n without a cut-off."""
    return float(expected_ap(np.array([[items]]), np.array([[relevant]]), cutoff)[0])


def auroc(negatives: Num[np.ndarray, " n"], positives: Num[np.ndarray, " p"]) -> float:
    """Probability that a positive scores above a negative; equal scores count one half."""
    ordered, positives = _scores(negatives, positives)
    below = np.searchsorted(ordered, positives, "left").sum() + np.searchsorted(ordered, positives, "right").sum()
    return float(below / (2 * len(ordered) * len(positives)))


def tpr_at_fpr(negatives: Num[np.ndarray, " n"], positives: Num[np.ndarray, " p"], max_fpr: float) -> float:
    """Largest share of positives at or above a threshold that at most `max_fpr` of the negatives reach."""
    if not 0 <= max_fpr <= 1:
        raise ValueError(f"a rate is between 0 and 1, not {max_fpr}")
    ordered, positives = _scores(negatives, positives)
    allowed = np.count_nonzero(np.arange(1, len(ordered) + 1) / len(ordered) <= max_fpr)
    if allowed == len(ordered):
        return 1.0
    return float(np.mean(positives > ordered[len(ordered) - 1 - allowed]))


@dataclass(frozen=True)
class _Buckets:
    """n, r: items and relevant items at each distance; nearer, nearer_relevant: nearer ones; m: those of n within R."""

    n: Int64[np.ndarray, "q d"]
    r: Int64[np.ndarray, "q d"]
    nearer: Int64[np.ndarray, "q d"]
    nearer_relevant: Int64[np.ndarray, "q d"]
    m: Int64[np.ndarray, "q d"]
    cutoff: Int64[np.ndarray, " q"]  # R, at most the size of the database
    found: Int64[np.ndarray, " q"]  # relevant items in the whole database

    @classmethod
    def of(cls, total: Histogram, relevant: Histogram, cutoff: int | None) -> _Buckets:
        if cutoff is not None and cutoff < 1:
            raise ValueError(f"a cut-off is at least 1, not {cutoff}")
        n, r = total.astype(np.int64), relevant.astype(np.int64)
        if (r > n).any() or (r < 0).any():
            raise ValueError("a distance has more relevant items than items: (total, relevant) is the order")
        nearer, nearer_relevant = n.cumsum(1) - n, r.cumsum(1) - r
        ranks = n.sum(1) if cutoff is None else np.minimum(n.sum(1), cutoff)
        m = np.clip(ranks[:, None] - nearer, 0, n)
        return cls(n, r, nearer, nearer_relevant, m, ranks, r.sum(1))

    @property
    def most_hits(self) -> Int64[np.ndarray, " q"]:
        return np.asarray(np.minimum(self.found, self.cutoff))

    def shares(self) -> Float64[np.ndarray, "q d"]:
        return _share(self.nearer, self.nearer_relevant, self.n, self.r, self.m)


Counts = Int64[np.ndarray, "*s"]
Reals = Float64[np.ndarray, "*s"]


def _share(nearer: Counts, nearer_relevant: Counts, n: Counts, r: Counts, m: Counts) -> Reals:
    """S(N, R', n, r, m) of the module's docstring."""
    a = (r - 1) / np.maximum(n - 1, 1)
    rise = _harmonic_rise(nearer, m)
    return np.asarray(r / np.maximum(n, 1) * ((nearer_relevant + 1 - a * (nearer + 1)) * rise + a * m))


def _run(nearer: Counts, nearer_relevant: Counts, length: Counts) -> Reals:
    """Sum of the precisions at `length` relevant items in a row: (R'+i)/(N+i) for i = 1..length."""
    return np.asarray(length + (nearer_relevant - nearer) * _harmonic_rise(nearer, length))


_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, EXACT_HARMONICS + 1))])


def _harmonic_rise(start: Counts, count: Counts) -> Reals:
    """H(start + count) - H(start), accurate also where subtracting two values of H would lose digits.

    Beyond the table H(x) = ln y + gamma + 1/(24 y^2) - 7/(960 y^4) + 31/(8064 y^6) - ..., y = x + 1/2.
    """
    end = start + count
    head = _HARMONIC[np.minimum(end, EXACT_HARMONICS)] - _HARMONIC[np.minimum(start, EXACT_HARMONICS)]
    low, high = np.maximum(start, EXACT_HARMONICS) + 0.5, np.maximum(end, EXACT_HARMONICS) + 0.5
    return np.asarray(head + np.log1p((high - low) / low) + _harmonic_tail(high) - _harmonic_tail(low))


def _harmonic_tail(y: Reals) -> Reals:
    z = 1 / (y * y)
    return np.asarray(z * (1 / 24 + z * (-7 / 960 + z * (31 / 8064))))


def _hypergeometric(
    x: Int64[np.ndarray, " x"],
    *,
    counts: tuple[Int64[np.ndarray, " x"], Int64[np.ndarray, " x"], Int64[np.ndarray, " x"]],
    starts: Int64[np.ndarray, " s"],
    sizes: Int64[np.ndarray, " s"],
) -> Float64[np.ndarray, " x"]:
    """C(r,x) C(n-r,m-x) / C(n,m). A run holds all x of one (n, r, m), so factors without x cancel in its sum."""
    from scipy.special import gammaln  # a slow import

    n, r, m = counts
    logs = -(gammaln(x + 1) + gammaln(r - x + 1) + gammaln(m - x + 1) + gammaln(n - r - m + x + 1))
    weights = np.exp(logs - np.repeat(np.maximum.reduceat(logs, starts), sizes))
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, starts), sizes))


def row_batches(sizes: Int64[np.ndarray, " q"], limit: int = 1 << 20) -> Iterator[slice]:
    """Slices of consecutive rows with about `limit` entries in total."""
    ends = np.flatnonzero(np.diff(sizes.cumsum() // limit, append=-1)) + 1
    for start, end in zip([0, *ends], ends, strict=False):
        yield slice(int(start), int(end))


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> Reals:
    """Elementwise above / below; `empty` where `below` is 0."""
    return np.asarray(np.divide(above, below, out=np.full(below.shape, empty), where=below > 0))


def _scores(
    negatives: Num[np.ndarray, " n"], positives: Num[np.ndarray, " p"]
) -> tuple[Num[np.ndarray, " n"], Num[np.ndarray, " p"]]:
    """The negatives, sorted, and the positives."""
    if not (len(negatives) and len(positives)):
        raise ValueError(f"no score to compare: {len(negatives)} negatives, {len(positives)} positives")
    if np.isnan(negatives).any() or np.isnan(positives).any():
        raise ValueError("scores hold NaN")
    return np.sort(negatives), positives


def _class_ids(labels: Integer[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are multi-hot [n, k] or integer class ids [n], not {labels.dtype} {labels.shape}")
    if (labels < 0).any():
        raise ValueError("class ids are not negative")
    return labels.astype(np.int64)


def _check(
    queries: PackedCodes, database: PackedCodes, relevance: Relevance, query_labels: LabelArray
) -> Bool[np.ndarray, "n k"]:
    """The label rows of the queries; ValueError if the arguments do not fit together."""
    check_pair(queries, database)
    if len(relevance) != len(database):
        raise ValueError(f"the database has {len(database)} codes and labels for {len(relevance)}")
    encoded = relevance.encode(query_labels)
    if len(encoded) != len(queries):
        raise ValueError(f"there are {len(queries)} query codes and labels for {len(encoded)}")
    return encoded

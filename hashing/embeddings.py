"""Retrieval with float embeddings, and the codes that are made of existing embeddings without labels.

Importing this module imports neither torch nor numba. Axes: q queries, m items, n vectors, e dimensions, b bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Integer, Num

from hashing.codes import PackedCodes, pack
from hashing.ranking import Histogram, PerQuery, Relevance, expected_ap, precision_at

__all__ = ["IterativeQuantisation", "SimilarityRanking", "sign_codes"]

Vectors = Num[np.ndarray, "n e"]
DECIMALS = 10  # of cosine similarities, so that equal vectors tie although sums of floats depend on their order
ENTRIES = 1 << 24  # similarities that are held at once


@dataclass(frozen=True)
class SimilarityRanking:
    """Items of a database in the order of their cosine similarity to a query; a vector of zeros is similar to none.

    Ties are treated as those of codes: metrics are expected values over all orders of equal similarities.
    """

    queries: Num[np.ndarray, "q e"]
    database: Num[np.ndarray, "m e"]
    query_labels: Bool[np.ndarray, "q k"] | Integer[np.ndarray, " q"]
    database_labels: Bool[np.ndarray, "m k"] | Integer[np.ndarray, " m"]

    def ap_and_precision(self, cutoff: int | None = None, depth: int = 1) -> tuple[PerQuery, PerQuery]:
        """AP over the first `cutoff` items (None: all), and expected precision among the first `depth`, of each query.

        AP is NaN for queries without a relevant item.
        """
        found = [(expected_ap(*both, cutoff), precision_at(*both, depth)) for both in self._histograms()]
        ap, precision = (np.concatenate(part) for part in zip(*found, strict=True))
        return ap, precision

    def _histograms(self) -> Iterator[tuple[Histogram, Histogram]]:
        """Items and relevant items at each different similarity of a query, the largest first, in batches."""
        unit_queries, unit_items = _unit(self.queries), _unit(self.database)
        relevance = Relevance(self.database_labels)
        step = max(1, ENTRIES // max(1, len(unit_items)))
        for start in range(0, len(unit_queries), step):
            part = slice(start, start + step)
            relevant = relevance.of(self.query_labels[part])
            yield _counts(np.round(unit_queries[part] @ unit_items.T, DECIMALS), relevant)


def _unit(vectors: Vectors) -> Float64[np.ndarray, "n e"]:
    found = vectors.astype(np.float64)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(np.divide(found, norms, out=np.zeros_like(found), where=norms > 0))


def _counts(similarities: Float64[np.ndarray, "q m"], relevant: np.ndarray) -> tuple[Histogram, Histogram]:
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranked = np.take_along_axis(similarities, order, 1)
    places = np.zeros(ranked.shape, np.int64)
    np.cumsum(ranked[:, 1:] != ranked[:, :-1], axis=1, out=places[:, 1:])
    places += np.arange(len(ranked))[:, None] * ranked.shape[1]
    hits = np.take_along_axis(relevant, order, 1)
    total, found = (
        np.bincount(chosen, minlength=ranked.size).reshape(ranked.shape) for chosen in (places.ravel(), places[hits])
    )
    return total, found


def sign_codes(vectors: Vectors) -> PackedCodes:
    """A bit per dimension: x > 0, as the binary quantisation of vector databases."""
    return pack(vectors)


@dataclass(frozen=True)
class IterativeQuantisation:
    """ITQ: the first principal components, rotated so that they lie near the corners of a cube.

    Gong, Lazebnik, Gordo and Perronnin, "Iterative Quantization: A Procrustean Approach to Learning Binary Codes for
    Large-scale Image Retrieval", TPAMI 2013, sections 3.1 and 3.2. mean [e], projection [e, b]: the bit is
    (x - mean) projection > 0.
    """

    mean: Float64[np.ndarray, " e"]
    projection: Float64[np.ndarray, "e b"]

    @classmethod
    def fit(
        cls, vectors: Vectors, bits: int, rng: np.random.Generator, *, iterations: int = 50
    ) -> IterativeQuantisation:
        """Fit to vectors without labels. iterations: 50 in the paper (section 3.2).

        ValueError: more bits than the vectors have dimensions in which they differ.
        """
        centred = vectors.astype(np.float64)
        mean = centred.mean(0)
        centred -= mean
        values, directions = np.linalg.eigh(centred.T @ centred)
        most = int((values > values.max(initial=0.0) * 1e-12).sum())
        if not 1 <= bits <= most:
            raise ValueError(
                f"{bits} bits: ITQ makes at most one of each direction in which vectors differ, here {most}"
            )
        components = directions[:, ::-1][:, :bits]
        start = np.linalg.qr(rng.standard_normal((bits, bits)))[0]
        return cls(mean, components @ rotation(centred @ components, start, iterations))

    def codes(self, vectors: Vectors) -> PackedCodes:
        """The codes of vectors [n, e]."""
        return pack((vectors.astype(np.float64) - self.mean) @ self.projection)


def rotation(
    projected: Float64[np.ndarray, "n b"], start: Float64[np.ndarray, "b b"], iterations: int
) -> Float64[np.ndarray, "b b"]:
    """The rotation R after some steps that lower |sign(V R) - V R|^2 (equation 2), from a first one.

    A step fixes the signs B and solves the Procrustes problem: with B'V = S D T', the best R is T S'.
    """
    found = start
    for _ in range(iterations):
        signs = np.where(projected @ found > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(signs.T @ projected)
        found = right.T @ left.T
    return found

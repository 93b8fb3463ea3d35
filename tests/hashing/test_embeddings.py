"""Rankings of float embeddings, and their quantisers, beside scikit-learn, scipy and faiss."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from hashing import embeddings
from hashing.codes import hamming_distances, pack
from hashing.embeddings import IterativeQuantisation, SimilarityRanking, rotation, sign_codes
from hashing.ranking import Relevance, average_precision, distance_histograms, precision_at


def vectors(n: int, dimensions: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dimensions)) @ rng.standard_normal((dimensions, dimensions))


def test_ap_is_that_of_scikit_learn():
    queries, base = vectors(7), vectors(50, seed=1)
    labels, base_labels = np.arange(7) % 3, np.arange(50) % 3
    similarities = cosine_similarity(queries, base)
    expected = [
        average_precision_score(base_labels == label, row) for label, row in zip(labels, similarities, strict=True)
    ]
    assert SimilarityRanking(queries, base, labels, base_labels).ap_and_precision()[0] == pytest.approx(expected)


@given(bits=st.integers(1, 20), seed=st.integers(0, 1000), cutoff=st.none() | st.integers(1, 40))
def test_vectors_of_signs_rank_as_their_codes(bits, seed, cutoff):
    """Cosine similarity of vectors of -1 and +1 is 1 - 2 d / bits, ties included."""
    rng = np.random.default_rng(seed)
    queries, base = (np.where(rng.random((n, bits)) < 0.5, -1.0, 1.0) for n in (5, 30))
    labels, base_labels = rng.integers(0, 3, 5), rng.integers(0, 4, 30)
    ranked = SimilarityRanking(queries, base, labels, base_labels)
    relevance = Relevance(base_labels)
    codes = pack(queries), pack(base)
    np.testing.assert_allclose(ranked.ap_and_precision(cutoff)[0], average_precision(*codes, relevance, labels, cutoff))
    histograms = distance_histograms(*codes, relevance, labels)
    np.testing.assert_allclose(ranked.ap_and_precision(depth=10)[1], precision_at(*histograms, 10))


def test_batches_change_nothing(monkeypatch):
    ranked = SimilarityRanking(vectors(9), vectors(20, seed=1), np.arange(9) % 2, np.arange(20) % 2)
    whole = ranked.ap_and_precision()[0]
    monkeypatch.setattr(embeddings, "ENTRIES", 45)
    np.testing.assert_array_equal(ranked.ap_and_precision()[0], whole)


def test_a_vector_of_zeros_is_as_similar_to_all(monkeypatch):
    """Every order of one relevant item among two is equally likely: (1 + 1/2) / 2."""
    found = SimilarityRanking(np.zeros((1, 3)), vectors(2, 3), np.array([1]), np.array([0, 1])).ap_and_precision()[0]
    assert found == pytest.approx([0.75])


def test_sign_is_the_sign():
    found = sign_codes(np.array([[0.1, -0.1, 0.0]]))
    assert hamming_distances(found, pack(np.array([[1, 0, 0]])))[0, 0] == 0


def test_a_step_solves_the_procrustes_problem():
    projected = vectors(100, 6)
    start = np.linalg.qr(vectors(6, 6, seed=2))[0]
    expected, _ = orthogonal_procrustes(projected, np.where(projected @ start > 0, 1.0, -1.0))
    np.testing.assert_allclose(rotation(projected, start, 1), expected, atol=1e-12)


def distance_to_corners(projected: np.ndarray) -> float:
    return float(((np.where(projected > 0, 1.0, -1.0) - projected) ** 2).sum())


def test_steps_never_raise_the_distance_to_the_corners():
    projected = vectors(200, 8)
    start = np.linalg.qr(vectors(8, 8, seed=3))[0]
    found = [distance_to_corners(projected @ rotation(projected, start, steps)) for steps in range(6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


def test_the_fit_is_no_worse_than_that_of_faiss():
    given_vectors = vectors(500, 16)
    fitted = IterativeQuantisation.fit(given_vectors, 8, np.random.default_rng(0))
    centred = given_vectors - given_vectors.mean(0)
    components = PCA(8).fit(given_vectors).components_.T
    theirs = faiss.ITQMatrix(8)
    theirs.train((centred @ components).astype(np.float32))
    rotated = centred @ components @ faiss.vector_to_array(theirs.A).reshape(8, 8).T
    assert distance_to_corners(centred @ fitted.projection) <= distance_to_corners(rotated)
    # both rotate the same space
    own = fitted.projection @ fitted.projection.T
    np.testing.assert_allclose(own, components @ components.T, atol=1e-8)


def test_codes_are_of_the_centred_and_rotated_vectors():
    found = IterativeQuantisation(np.array([1.0, 1.0]), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    codes = found.codes(np.array([[2.0, 3.0], [0.0, 0.0]]))  # (1, 2) -> (-2, 1); (-1, -1) -> (1, -1)
    assert hamming_distances(codes, pack(np.array([[0, 1], [1, 0]]))).diagonal().tolist() == [0, 0]


@pytest.mark.parametrize("bits", [0, 3])
def test_more_bits_than_directions_are_refused(bits):
    flat = vectors(20, 2) @ np.ones((2, 5))
    with pytest.raises(ValueError, match="here 1"):
        IterativeQuantisation.fit(flat, bits, np.random.default_rng(0))


def test_embeddings_far_from_the_origin_keep_their_order():
    """Their cosines differ by 1e-8 or less."""
    base = np.eye(2).repeat(10, 0) + 5000.0
    labels = np.arange(20) // 10
    ranked = SimilarityRanking(base[[0, 10]], base, np.array([0, 1]), labels)
    assert ranked.ap_and_precision()[0] == pytest.approx([1.0, 1.0])


def test_only_one_batch_is_held(monkeypatch):
    import tracemalloc

    ranked = SimilarityRanking(vectors(200), vectors(2000, seed=1), np.zeros(200, int), np.zeros(2000, int))
    monkeypatch.setattr(embeddings, "ENTRIES", 2000 * 10)
    tracemalloc.start()
    ranked.ap_and_precision()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2000 * 8  # a single matrix of all pairs

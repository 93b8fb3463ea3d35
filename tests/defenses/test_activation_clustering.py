"""Activation clustering: on planted blobs, against scikit-learn, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from bench.api.defense import Needs
from bench.api.random import Rng
from defenses.activation_clustering import ActivationClustering, reduced, split_in_two
from tests.defenses.conftest import Featured

NEEDS = Needs.TRAIN_SET


def blobs(first: int, second: int, d: int = 20, apart: float = 8.0) -> torch.Tensor:
    rows = Rng("blobs", first, second).normal((first + second, d))
    rows[first:, 0] += apart
    return rows


@pytest.mark.parametrize(("how", "dims"), [("ica", 2), ("pca", 10)])  # whitened noise in more would hide the blobs
@pytest.mark.parametrize(("first", "second"), [(40, 15), (15, 40), (70, 30)])
def test_the_smaller_of_two_blobs_is_found(how, dims, first, second):
    components = reduced(blobs(first, second), dims, how, 3)
    smaller, cohesion = split_in_two(components, 3)
    assert smaller.tolist() == [(i >= first) == (second < first) for i in range(first + second)]
    assert cohesion.mean() == pytest.approx(silhouette_score(components, smaller))
    again = split_in_two(reduced(blobs(first, second), dims, how, 3), 3)
    assert np.array_equal(again[0], smaller)
    assert np.array_equal(again[1], cohesion)


def test_of_equal_clusters_the_first_rows_is_the_larger():
    smaller, _ = split_in_two(np.array([[5.0], [0.0], [5.1], [0.1]]), 0)
    assert smaller.tolist() == [False, True, False, True]


def test_principal_components_are_scikit_learns():
    rows = blobs(30, 10)
    expected = PCA(10, svd_solver="full").fit_transform(rows.double().numpy())
    assert np.abs(reduced(rows, 10, "pca", 0)) == pytest.approx(np.abs(expected), abs=1e-6)


@pytest.mark.parametrize("how", ["ica", "pca"])
def test_degenerate_classes(how):
    assert reduced(torch.ones(30, 5), 10, how, 0) is None
    assert reduced(blobs(2, 1), 10, how, 0) is None
    flat = torch.zeros(30, 5)
    flat[:, 2] = torch.arange(30.0) % 2  # one direction, two distinct points
    components = reduced(flat, 10, how, 0)
    assert components.shape == (30, 1)
    assert split_in_two(components, 0)[1] == pytest.approx(1)


def judged(view, features: torch.Tensor, **params):
    planted = Featured(view.model, view.train.images, features)
    return ActivationClustering(**params).judge(replace(view, model=planted), Rng("d"))


def features_with(view, poison: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapeless classes of 30, in one of which `poison` images form a second cluster."""
    features = Rng("clean").uniform((120, 20))
    planted = torch.nonzero(view.train.labels[:, 1]).flatten()[:poison]
    features[planted] += 2
    return features, planted


@pytest.mark.parametrize(("how", "dims"), [("ica", 1), ("pca", 10)])
def test_a_planted_cluster_is_removed_and_has_the_highest_scores(view, how, dims):
    features, planted = features_with(view, 8)
    found = judged(view, features, reduce=how, dims=dims)
    own = view.train.labels[:, 1]
    assert torch.nonzero(~found.keep & own).flatten().tolist() == planted.tolist()
    assert set(found.scores.topk(8).indices.tolist()) == set(planted.tolist())
    assert bool((found.scores[own & found.keep] < 0).all())
    assert found.model is None


def test_half_of_a_class_stays(view):
    features, planted = features_with(view, 14)
    found = judged(view, features)
    assert bool(found.keep[planted].all())
    assert bool((~judged(view, features, share=0.5).keep[planted]).all())


def test_a_class_without_clusters_stays(view):
    features, planted = features_with(view, 8)
    found = judged(view, features, silhouette=0.3)
    assert torch.nonzero(~found.keep).flatten().tolist() == planted.tolist()
    assert bool(judged(view, features, silhouette=0.99).keep.all())


def test_collapsed_features_are_not_suspicious(view):
    found = judged(view, torch.ones(120, 20))
    assert bool(found.keep.all())
    assert found.scores.tolist() == [-1] * 120


def test_seed_and_space_are_used(view):
    one, other = (ActivationClustering(space=space).judge(view, Rng("d")).scores for space in ("features", "code"))
    assert not torch.equal(one, other)
    assert float(one.abs().max()) <= 1

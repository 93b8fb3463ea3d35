"""Spectral signatures: against NumPy's SVD, on planted outliers, and where theory says that it inverts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bench.api.defense import Needs
from bench.api.random import Rng
from defenses.helpers.features import by_label, embed, percentiles, principal
from defenses.spectral_signatures import SpectralSignatures, projections
from tests.defenses.conftest import Featured

NEEDS = Needs.TRAIN_SET


def planted(share: float, n: int = 200, d: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """A class in which `share` of the rows, the first ones, are moved far along one direction."""
    rows = 0.1 * Rng("planted", n).normal((n, d))
    poison = torch.arange(n) < round(share * n)
    rows[poison] += 5 * torch.nn.functional.normalize(torch.ones(d), dim=0)
    return rows + 3, poison


@given(st.integers(2, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_principal_components_are_numpys(n, d, count, seed):
    rows = Rng("svd", n, d, seed).normal((n, d)) + 2
    centred = rows.double().numpy() - rows.double().numpy().mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * values)[:, : min(count, n - 1, d)]
    found = principal(rows, count).numpy()
    assert found.shape == expected.shape
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-6)
    if count == 1:
        assert projections(rows).numpy() == pytest.approx(expected[:, 0] ** 2, abs=1e-6)


def test_a_class_of_equal_rows_has_no_direction():
    assert principal(torch.full((7, 3), 0.1), 2).shape == (7, 0)
    assert projections(torch.full((7, 3), 0.1)).tolist() == [0] * 7
    assert projections(torch.ones(1, 3)).tolist() == [0]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_squared_projections_are_what_theory_says(share):
    rows, poison = planted(share)
    scores = projections(rows) / 25  # the distance between the two centres, squared
    assert float(scores[~poison].mean()) == pytest.approx(share**2, abs=0.02)
    assert float(scores[poison].mean()) == pytest.approx((1 - share) ** 2, abs=0.02)


@pytest.mark.parametrize(("share", "auroc"), [(0.1, 1), (0.3, 1), (0.7, 0), (0.9, 0)])
def test_the_ranking_inverts_where_poison_is_the_majority(share, auroc):
    rows, poison = planted(share)
    assert roc_auc_score(poison, projections(rows)) == auroc


def test_percentiles_count_equals_half():
    assert percentiles(torch.tensor([3.0, 1.0, 3.0, 7.0]).double()).tolist() == [0.5, 0.125, 0.5, 0.875]


def test_an_image_is_as_suspicious_as_under_its_worst_label():
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
    given_scores = {(0, 1): [0.9, 0.2], (1, 2): [0.6, 0.4]}

    def judge(own):
        found = torch.tensor(given_scores[tuple(own.tolist())])
        return found, found > 0.5

    scores, removed = by_label(labels, judge, lowest=-2.0)
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.4, -2])
    assert removed.tolist() == [True, True, False, False]


@pytest.mark.parametrize(("bound", "each"), [(0.05, 9), (0.02, 3), (0.005, 0), (0.2, 15), (1.0, 15)])
def test_removes_the_top_of_every_class(view, bound, each):
    """120 images, 30 of each class: 1.5 bound 120 of a class, and half of it at most."""
    found = SpectralSignatures(bound=bound).judge(view, Rng("d"))
    for own in view.train.labels.T:
        assert int((~found.keep[own]).sum()) == each
        assert set(found.scores[own].argsort(descending=True)[:each].tolist()) == set(
            torch.nonzero(~found.keep[own]).flatten().tolist()
        )
    assert found.model is None


def test_finds_what_was_planted_in_one_class(view):
    """Planted outliers are the only ones that leave their class; another class has another scale."""
    own = torch.nonzero(view.train.labels[:, 1]).flatten()
    features = Rng("features").normal((120, 8))
    features[own[:4]] += 20
    features[view.train.labels[:, 2]] *= 1000
    planted = Featured(view.model, view.train.images, features)
    found = SpectralSignatures(bound=4 / 180).judge(replace(view, model=planted), Rng("d"))
    assert torch.nonzero(~found.keep & view.train.labels[:, 1]).flatten().tolist() == own[:4].tolist()
    assert float(found.scores[own[:4]].min()) > 1 - 4 / 30
    assert float(found.scores.max()) < 1


def test_what_is_judged(view):
    images = view.train.images.float() / 255
    with torch.no_grad():
        assert torch.allclose(embed(view, "features", portion=50), view.model.features(images), atol=1e-5)
        assert torch.allclose(embed(view, "code", portion=50), view.model(images).tanh(), atol=1e-5)
    features, code = (SpectralSignatures(space=space).judge(view, Rng("d")).scores for space in ("features", "code"))
    assert not torch.equal(features, code)


def test_several_labels_and_none(view):
    labels = view.train.labels.clone()
    labels[:20, 3], labels[20] = True, False
    several = replace(view, granted={"train": replace(view.train, labels=labels)})
    found = SpectralSignatures().judge(several, Rng("d"))
    alone = SpectralSignatures().judge(view, Rng("d"))
    assert (found.scores[20], bool(found.keep[20])) == (0, True)
    untouched = view.train.labels[:, 0] & (torch.arange(120) > 20)
    assert not torch.equal(found.scores[:20], alone.scores[:20])
    assert bool((found.scores[untouched] > 0).all())

"""The robust estimate, QUE scores and the choice of the dimension against a second computation; planted poison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm, sqrtm
from sklearn.metrics import roc_auc_score

from bench.api.defense import Needs
from bench.api.random import Rng
from defenses.helpers.robust_covariance import robust_rows
from defenses.spectral_signatures import SpectralSignatures
from defenses.spectre import Spectre
from tests.defenses.conftest import Featured

NEEDS = Needs.TRAIN_SET

# The rows that cov_estimation_iterate leaves out, in SCLBD/BackdoorBench (3f4b1a9, detection_pretrain/spectre_utils.py,
# with numpy.linalg.solve for a function that SciPy has removed); the steps of the authors' dkk17.jl leave out the same.
LEFT_OUT = [0, 1, 2, 4, 5, 6, 7, 8, 9]


def scattered() -> np.ndarray:
    """200 normal rows, of which the first ten scatter more."""
    rows = np.random.default_rng(0).normal(size=(200, 9))
    rows[:10] *= 3.5
    rows[:10, 0] += 2
    return rows - rows.mean(0)


def test_the_robust_estimate_leaves_out_the_rows_that_the_authors_filter_leaves_out():
    assert np.flatnonzero(~robust_rows(scattered(), 10 / 200, 20)).tolist() == LEFT_OUT


def test_no_more_rows_than_allowed_are_left_out_and_none_of_normal_ones():
    assert int((~robust_rows(scattered(), 10 / 200, 4)).sum()) == 4
    assert robust_rows(scattered()[10:], 10 / 190, 20).all()
    assert robust_rows(scattered(), 0.0, 0).all()


def test_a_row_very_far_away_is_left_out_first():
    rows = scattered()
    rows[50] = 1000
    assert np.flatnonzero(~robust_rows(rows, 1 / 200, 1)).tolist() == [50]


def que(white: np.ndarray) -> np.ndarray:
    """The formula of the paper, by SciPy's exponential of matrices."""
    covariance = np.cov(white.T)
    weight = expm(4 * (covariance - np.eye(len(covariance))) / (np.linalg.norm(covariance, 2) - 1))
    return np.array([row @ weight @ row for row in white]) / np.trace(weight)


def white_by(rows: np.ndarray, own: np.ndarray, ddof: int) -> np.ndarray:
    return np.linalg.solve(sqrtm(np.cov(own.T, ddof=ddof)).real, rows.T).T


def test_scores_are_quantum_entropies_of_rows_whitened_by_the_robust_covariance():
    rows = scattered()
    rows[:10, 0] += 6
    rows -= rows.mean(0)
    kept = robust_rows(rows, 10 / 200, 20)
    assert not kept[:10].any()
    assert Spectre().scores(rows, 10.0) == pytest.approx(que(white_by(rows, rows[kept], 0)), rel=1e-8)
    assert Spectre().scores(rows[:, :1], 10.0) == pytest.approx(rows[:, 0] ** 2)


def hidden(n: int = 300, poison: int = 10) -> np.ndarray:
    """Nine components; the first rows are far out along the eighth, which varies little in the other rows."""
    rows = np.random.default_rng(1).normal(size=(n, 9)) * np.linspace(5, 1, 9)
    rows[:poison, 7] += 15
    return rows - rows.mean(0)


def test_takes_the_dimension_after_whose_removal_the_mean_entropy_is_largest():
    rows = hidden()
    levels, removed = {}, {}
    for k in (1, 4, 9):
        removed[k] = np.argsort(-Spectre().scores(rows[:, :k], 10.0))[:15]
        levels[k] = que(white_by(rows, np.delete(rows, removed[k], 0), 1)).mean()
    k, scores, bad = Spectre().best(rows, 15)
    assert k == max(levels, key=levels.get) == 9
    assert set(np.flatnonzero(bad).tolist()) == set(removed[k].tolist()) > set(range(10))
    assert scores == pytest.approx(Spectre().scores(rows, 10.0))


def judged(view, features: torch.Tensor, defense):
    planted = Featured(view.model, view.train.images, features)
    shown = replace(view, model=planted)
    return defense.judge(shown, Rng("d")), shown.notes


def test_finds_poison_off_the_direction_of_largest_variance_unlike_spectral_signatures(view):
    """One direction varies much in clean images too; poison is far out in another one."""
    own = torch.nonzero(view.train.labels[:, 1]).flatten()
    features = Rng("hidden").normal((120, 4)) * torch.tensor([20.0, 1, 1, 1])
    features[own[:3], 1] += 9
    poison = torch.zeros(120, dtype=torch.bool)
    poison[own[:3]] = True
    found, notes = judged(view, features, Spectre(bound=3 / 120, rows=5))
    plain, _ = judged(view, features, SpectralSignatures(bound=3 / 120))
    in_class = view.train.labels[:, 1]
    assert not (found.keep & poison).any()
    assert roc_auc_score(poison[in_class], found.scores[in_class]) == 1
    assert roc_auc_score(poison[in_class], plain.scores[in_class]) < 0.9
    assert 1 <= notes["mean number of components"] <= 4


@pytest.mark.parametrize(("bound", "each"), [(0.05, 9), (0.02, 3), (0.0, 0), (0.2, 15)])
def test_removes_as_many_of_every_class_as_spectral_signatures(view, bound, each):
    ours, theirs = (kind(bound=bound).judge(view, Rng("d")) for kind in (Spectre, SpectralSignatures))
    for own in view.train.labels.T:
        assert int((~ours.keep[own]).sum()) == int((~theirs.keep[own]).sum()) == each
        assert torch.equal(ours.keep[own], ours.scores[own] <= ours.scores[own].sort().values[len(own[own]) - each - 1])


def test_classes_of_equal_or_very_few_images(view):
    equal, _ = judged(view, torch.ones(120, 6), Spectre())
    assert equal.scores.unique().tolist() == [0.5]
    labels = torch.zeros_like(view.train.labels)
    labels[0, 0], labels[1:3, 1] = True, True
    few = replace(view, granted={"train": replace(view.train, labels=labels)})
    assert Spectre().judge(few, Rng("d")).scores[3:].eq(0).all()


def test_codes_are_another_space(view):
    features, code = (Spectre(space=space).judge(view, Rng("d")).scores for space in ("features", "code"))
    assert not torch.equal(features, code)


def test_a_row_beside_equal_ones_is_removed():
    """The rows that stay have no variance at all."""
    components = np.array([[-1.0]] * 9 + [[9.0]])
    _, scores, removed = Spectre().best(components, 1)
    assert np.isfinite(scores).all()
    assert list(np.flatnonzero(removed)) == [9]

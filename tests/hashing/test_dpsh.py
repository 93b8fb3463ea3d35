"""DPSH against values worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.dpsh import DPSH
from hashing.methods.helpers.pairs import PairwiseLikelihood

ONE_HOT = torch.eye(2, dtype=torch.bool)
IDS = torch.arange(2)


def softplus(x: float) -> float:
    return log(1 + exp(x))


def dpsh_after_one_batch() -> tuple[PairwiseLikelihood, torch.Tensor]:
    objective = PairwiseLikelihood(2, 2, 3, DPSH().quantisation_loss)
    return objective, objective(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), ONE_HOT, torch.tensor([2, 0]), 0.0)


def test_dpsh_by_hand():
    """Theta = u.u/2 is 1/2 and 2 for the items with themselves, else 0; item 1 has not been seen: no label, zeros."""
    _, loss = dpsh_after_one_batch()
    likelihood = (softplus(0.5) - 0.5 + softplus(2) - 2 + 4 * log(2)) / 6
    edge = (2 - 1) ** 2 / 4  # sign(0) = 0
    assert float(loss) == pytest.approx(likelihood + 0.1 * edge, abs=1e-6)


def test_dpsh_remembers_codes_and_labels_by_id_and_compares_with_them():
    objective, _ = dpsh_after_one_batch()
    assert objective.codes.tolist() == [[0, 2], [0, 0], [1, 0]]
    assert objective.labels.tolist() == [[False, True], [False, False], [True, False]]
    # item 1 shares the label of item 2 (code [1, 0]) and differs from item 0 (code [0, 2])
    loss = objective(torch.tensor([[1.0, 1.0]]), ONE_HOT[:1], torch.tensor([1]), 0.0)
    assert float(loss) == pytest.approx((softplus(1) + softplus(1) - 1 + softplus(0.5) - 0.5) / 3, abs=1e-6)


def test_dpsh_sends_no_gradient_through_its_memory():
    """The derivative of the likelihood by u_i is the mean of (sigmoid(theta_ij) - s_ij) u_j / 2, u_j constant."""
    objective = PairwiseLikelihood(2, 2, 2, DPSH(quantisation=0).quantisation_loss)
    u = torch.tensor([[1.0, 0.5], [-0.5, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(u, ONE_HOT, IDS, 0.0), u)
    with torch.no_grad():
        expected = (torch.sigmoid(u @ u.T / 2) - torch.eye(2)) @ u / 2 / 4
    torch.testing.assert_close(gradient, expected)


def test_dpsh_counts_multi_label_images_that_share_any_label_as_similar():
    labels = torch.tensor([[True, True], [False, True]])
    objective = PairwiseLikelihood(2, 2, 2, DPSH(quantisation=0).quantisation_loss)
    loss = objective(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), labels, IDS, 0.0)
    assert float(loss) == pytest.approx(softplus(1) - 1, abs=1e-6)


def test_dpsh_starts_an_empty_memory_for_another_training_set():
    objective, _ = dpsh_after_one_batch()
    fresh = objective.reset_for(7)
    assert fresh.codes.shape == (7, 2)
    assert not fresh.codes.any()
    assert not fresh.labels.any()
    assert objective.codes.any()
    batch = (torch.tensor([[0.5, 0.5]]), ONE_HOT[:1], torch.tensor([0]), 0.0)
    expected = PairwiseLikelihood(2, 2, 7, DPSH().quantisation_loss)(*batch)
    assert float(fresh(*batch)) == float(expected)


def test_dpsh_takes_its_memory_from_the_training_set():
    objective = DPSH(quantisation=0.3).objective(bits=4, classes=3, train_size=9, rng=Rng("o"))
    assert objective.codes.shape == (9, 4)
    assert objective.labels.shape == (9, 3)

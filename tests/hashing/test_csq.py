"""CSQ against values worked out by hand."""

from __future__ import annotations

from math import exp, log, tanh

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.csq import CSQ
from hashing.methods.helpers.centres import CentreLoss

IDS = torch.arange(2)


def softplus(x: float) -> float:
    return log(1 + exp(x))


def csq(quantisation: float = 1e-4) -> CentreLoss:
    centres = torch.tensor([[1.0, -1, 1, 1], [-1, -1, 1, -1], [-1, 1, 1, 1]])
    return CentreLoss(centres, torch.tensor([1.0, -1, -1, 1]), quantisation)


def test_csq_at_zero_logits_is_log_two_plus_the_whole_quantisation_term():
    loss = csq()(torch.zeros(2, 4), torch.eye(3, dtype=torch.bool)[:2], IDS, 0.0)
    assert float(loss) == pytest.approx(log(2) + 1e-4, abs=1e-7)


def test_csq_by_hand():
    """-log of (1 + c tanh u) / 2 = log(1 + exp(-2 c u)) per bit, plus (|tanh u| - 1)^2."""
    u, c = [0.5, -1.0, 0.25, -2.0], [1, -1, 1, 1]
    pull = sum(softplus(-2 * a * b) for a, b in zip(c, u, strict=True)) / 4
    edge = sum((abs(tanh(x)) - 1) ** 2 for x in u) / 4
    labels = torch.tensor([[True, False, False]])
    loss = csq(quantisation=0.5)(torch.tensor([u]), labels, IDS[:1], 0.0)
    assert float(loss) == pytest.approx(pull + 0.5 * edge, abs=1e-6)


def test_csq_aims_multi_label_images_at_the_majority_with_ties_broken_by_one_vector():
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
    aims = csq().targets_for(labels)
    assert aims.tolist() == [
        [1, -1, 1, 1],  # its own centre
        [1, -1, 1, 1],  # ties in bits 0 and 3 take the vector's 1 and 1
        [-1, -1, 1, 1],  # a majority everywhere
        [1, -1, -1, 1],  # no label: the vector itself
        [-1, -1, 1, 1],  # ties in bits 1 and 3 take -1 and 1
    ]


def test_csq_draws_its_centres_and_a_tie_break_of_signs():
    objective = CSQ().objective(bits=16, classes=10, train_size=5, rng=Rng("o"))
    assert objective.centres.shape == (10, 16)
    assert set(objective.tie_break.tolist()) == {-1.0, 1.0}
    assert objective.reset_for(99) is objective

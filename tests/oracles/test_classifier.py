"""The classifier of the bridge test (tests/experiments/classifier.py) is a softmax classifier."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bench.api.random import Rng
from tests.experiments.classifier import CrossEntropy, LogOdds


def scores_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    rng = Rng("classifier")
    return 3 * rng.normal((50, 7)), rng.integers(7, (50,))


def test_logits_are_log_odds_and_a_bit_says_whether_a_class_has_more_than_half():
    scores, _ = scores_and_labels()
    p = scores.double().softmax(1)
    logits = LogOdds()(scores)
    torch.testing.assert_close(logits.double(), (p / (1 - p)).log(), rtol=1e-4, atol=1e-4)
    assert torch.equal(logits > 0, p > 0.5)


def test_the_loss_is_torchs_cross_entropy_and_so_is_its_gradient():
    scores, labels = scores_and_labels()
    wanted = scores.clone().requires_grad_()
    expected = F.cross_entropy(wanted, labels)
    expected.backward()
    found = scores.clone().requires_grad_()
    loss = CrossEntropy()(LogOdds()(found), F.one_hot(labels, 7).bool(), torch.arange(50), 0.0)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)

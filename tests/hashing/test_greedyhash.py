"""GreedyHash against values worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.greedyhash import Greedy, GreedyHash
from hashing.methods.helpers.classes import shared_cross_entropy

IDS = torch.arange(2)


def test_targets_are_spread_over_labels():
    scores = torch.tensor([[1.0, 2.0, 0.0]])
    total = log(exp(1) + exp(2) + 1)
    for labels, expected in (([1, 0, 0], total - 1), ([1, 1, 0], total - 1.5), ([0, 0, 0], 0)):
        found = shared_cross_entropy(scores, torch.tensor([labels], dtype=torch.bool))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def greedy(**params: float) -> Greedy:
    objective = GreedyHash(**params).objective(bits=2, classes=3, train_size=4, rng=Rng("o"))
    assert isinstance(objective, Greedy)
    with torch.no_grad():
        objective.classifier.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 2.0], [0.0, 0.0]]))
    return objective


def test_greedyhash_by_hand():
    """Signs of (0.2, -3) are (1, -1), of (0, 0.5) are (-1, 1): sign(0) is -1."""
    logits, labels = torch.tensor([[0.2, -3.0], [0.0, 0.5]]), torch.eye(3, dtype=torch.bool)[:2]
    first, second = [0.5, -3.0, 0.0], [-0.5, 3.0, 0.0]
    entropy = log(sum(map(exp, first))) - first[0] + log(sum(map(exp, second))) - second[1]
    edge = (0.8**3 + 2**3 + 1 + 0.5**3) / 4
    assert float(greedy()(logits, labels, IDS, 0.0).detach()) == pytest.approx(entropy / 2 + 0.1 * edge, abs=1e-6)


def test_greedyhash_passes_the_gradient_of_the_signs_to_the_logits():
    objective, labels = greedy(quantisation=0.0), torch.eye(3, dtype=torch.bool)[:1]
    logits = torch.tensor([[0.2, -3.0]], requires_grad=True)
    objective(logits, labels, IDS[:1], 0.0).backward()
    signs = torch.tensor([[1.0, -1.0]], requires_grad=True)
    shared_cross_entropy(objective.classifier(signs), labels).backward()
    assert logits.grad is not None
    assert signs.grad is not None
    torch.testing.assert_close(logits.grad, signs.grad)
    assert objective.classifier.weight.grad is not None  # the classifier learns too

"""HashNet against values worked out by hand."""

from __future__ import annotations

from math import exp, log, sqrt, tanh

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.hashnet import HashNet


def softplus(x: float) -> float:
    return log(1 + exp(x))


@pytest.mark.parametrize(("progress", "steps"), [(0.0, 1), (0.1333, 1), (20 / 150, 2), (0.4, 4), (0.999, 8), (1.0, 8)])
def test_hashnet_sharpens_in_steps(progress, steps):
    z = 0.37
    assert float(HashNet().relax(torch.tensor([[z]]), progress)) == pytest.approx(tanh(sqrt(steps) * z), abs=1e-6)


def test_hashnet_begins_no_step_at_the_very_end():
    assert float(HashNet(stretch=0.5).relax(torch.tensor([[0.2]]))) == pytest.approx(tanh(sqrt(2) * 0.2), abs=1e-6)


def test_hashnet_by_hand():
    """Ordered pairs of a batch of three, two of which share a label: 5 of 9 similar."""
    logits = [[0.5, -1.0], [0.2, 0.4], [-1.5, 0.1]]
    labels = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.bool)
    similar = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    h = [[tanh(sqrt(2) * z) for z in row] for row in logits]
    total = 0.0
    for i in range(3):
        for j in range(3):
            theta = 0.1 * sum(a * b for a, b in zip(h[i], h[j], strict=True))
            weight = 9 / 7 if similar[i][j] else 9 / 2
            total += weight * (softplus(theta) - similar[i][j] * theta)
    loss = HashNet().objective(bits=2, classes=2, train_size=3, rng=Rng("o"))(
        torch.tensor(logits), labels, torch.arange(3), 0.2
    )
    assert float(loss) == pytest.approx(total / 9, abs=1e-6)

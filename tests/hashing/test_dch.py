"""DCH against values worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.dch import DCH


def objective_of(method: DCH, bits: int):
    return method.objective(bits=bits, classes=3, train_size=9, rng=Rng("o"))


LABELS = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)  # 0 and 3 share two labels
LOGITS = [[0.3, -1.2], [0.9, 0.1], [-0.4, -0.6], [2.0, 0.5]]


def test_dch_by_hand():
    """Cauchy: similar pairs cost log(1 + d/g), others log(1 + g/d); each kind weighs as much as the other."""
    gamma, bits = 5.0, 2

    def distance(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        cosine = dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
        return bits / 2 * (1 - min(cosine, 0.99))

    similar = [[bool((LABELS[i] & LABELS[j]).any()) for j in range(4)] for i in range(4)]
    count = sum(map(sum, similar))
    assert count == 10
    total = 0.0
    for i in range(4):
        for j in range(4):
            d = distance(LOGITS[i], LOGITS[j])
            total += 16 / count * log(1 + d / gamma) if similar[i][j] else 16 / (16 - count) * log(1 + gamma / d)
    edge = [log(1 + distance([abs(x) for x in row], [1.0, 1.0]) / gamma) for row in LOGITS]
    loss = objective_of(DCH(gamma=gamma, quantisation=0.5), bits)(torch.tensor(LOGITS), LABELS, torch.arange(4), 0.0)
    assert float(loss) == pytest.approx(total / 16 + 0.5 * sum(edge) / 4, rel=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_dch_of_a_batch_with_one_kind_of_pairs_is_finite(same):
    labels = torch.tensor([[True, False, False]]).expand(4, 3) if same else torch.eye(4, 3, dtype=torch.bool)
    logits = torch.zeros(4, 8, requires_grad=True)
    loss = objective_of(DCH(), 8)(logits, labels, torch.arange(4), 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()

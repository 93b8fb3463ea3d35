"""The pairwise loss of CIBA's code against values worked out by hand."""

from __future__ import annotations

from math import tanh

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.ciba_pairwise import CibaPairwise

ONE_HOT = torch.eye(2, dtype=torch.bool)
IDS = torch.arange(2)


def objective_of(method: CibaPairwise, bits: int):
    return method.objective(bits=bits, classes=3, train_size=9, rng=Rng("o"))


LABELS = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)  # 0 and 3 share two labels
LOGITS = [[0.3, -1.2], [0.9, 0.1], [-0.4, -0.6], [2.0, 0.5]]


@pytest.mark.parametrize(("divide", "divisor"), [("batch", 4), ("bits", 2)])
def test_ciba_pairwise_by_hand(divide, divisor):
    """All ordered pairs, an image with itself included; the similarity counts shared labels."""
    codes = [[tanh(x) for x in row] for row in LOGITS]
    shared = (LABELS.int() @ LABELS.int().T).tolist()
    assert shared[0][3] == 2
    pairs = [
        (sum(a * b for a, b in zip(codes[i], codes[j], strict=True)) / divisor - (2 * shared[i][j] - 1)) ** 2
        for i in range(4)
        for j in range(4)
    ]
    edge = sum((1 - abs(x)) ** 2 for row in codes for x in row)
    method = CibaPairwise(divide=divide, quantisation=0.25)
    loss = objective_of(method, 2)(torch.tensor(LOGITS), LABELS, torch.arange(4), 0.0)
    assert float(loss) == pytest.approx(sum(pairs) / 16 + 0.25 * edge, rel=1e-5)


def test_ciba_pairwise_at_its_best_for_codes_of_two_opposite_classes():
    """Divided by the bits, saturated codes u and -u meet every aim exactly; divided by a batch of 2 they overshoot."""
    logits = torch.tensor([[20.0] * 8, [-20.0] * 8])
    assert float(objective_of(CibaPairwise(divide="bits"), 8)(logits, ONE_HOT, IDS, 0.0)) == pytest.approx(0, abs=1e-9)
    assert float(objective_of(CibaPairwise(), 8)(logits, ONE_HOT, IDS, 0.0)) == pytest.approx(9, abs=1e-6)

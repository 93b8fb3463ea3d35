"""DHN against DPSH."""

from __future__ import annotations

from math import cosh, log

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.dhn import DHN
from hashing.methods.dpsh import DPSH

ONE_HOT = torch.eye(2, dtype=torch.bool)
IDS = torch.arange(2)


def test_dhn_differs_from_dpsh_by_log_cosh():
    logits, labels = torch.tensor([[0.3, -1.5], [-2.0, 0.0]]), ONE_HOT
    plain = DPSH(quantisation=0).objective(bits=2, classes=2, train_size=2, rng=Rng("o"))(logits, labels, IDS, 0.0)
    edge = sum(log(cosh(abs(z) - 1)) for z in logits.flatten().tolist()) / 4
    loss = DHN(quantisation=0.5).objective(bits=2, classes=2, train_size=2, rng=Rng("o"))(logits, labels, IDS, 0.0)
    assert float(loss) == pytest.approx(float(plain) + 0.5 * edge, abs=1e-6)
    far = DHN(quantisation=1.0).quantisation_loss(torch.tensor([[1000.0]]))
    assert float(far) == pytest.approx(999 - log(2), rel=1e-6)  # cosh itself would overflow

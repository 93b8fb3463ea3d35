"""OrthoHash against values worked out by hand."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
import torch

from bench.api.random import Rng
from hashing.methods.orthohash import CosineLoss, OrthoHash

IDS = torch.arange(2)


def test_orthohash_by_hand():
    objective = CosineLoss(torch.tensor([[1.0, 1], [1, -1], [-1, 1]]), 8.0, 0.2)
    v = [3.0, 4.0]
    cosine = [7 / 5 / sqrt(2), -1 / 5 / sqrt(2), 1 / 5 / sqrt(2)]
    scores = [8 * (c - (0.2 if k == 0 else 0)) for k, c in enumerate(cosine)]
    expected = log(sum(map(exp, scores))) - scores[0]
    loss = objective(torch.tensor([v]), torch.tensor([[True, False, False]]), IDS[:1], 0.0)
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    both = [8 * (c - (0.2 if k < 2 else 0)) for k, c in enumerate(cosine)]
    expected = log(sum(map(exp, both))) - (both[0] + both[1]) / 2
    loss = objective(torch.tensor([v]), torch.tensor([[True, True, False]]), IDS[:1], 0.0)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_orthohash_draws_fair_bits_and_normalises_its_logits():
    objective = OrthoHash().objective(bits=64, classes=50, train_size=5, rng=Rng("o"))
    assert isinstance(objective, CosineLoss)
    assert set(objective.codebook.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(objective.codebook.mean())) < 0.06
    head = OrthoHash().head(5, 4)
    out = head(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))
    assert out.mean(0).abs().max() < 1e-5

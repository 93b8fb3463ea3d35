"""The topological alignment against its formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.helpers.topology import neighbourhood, topological_alignment
from bench.api.random import Rng


def by_hand(outputs: np.ndarray, wanted: np.ndarray) -> float:
    """METHODOLOGY.md#darkhash, pair by pair."""

    def rows(codes: np.ndarray) -> np.ndarray:
        n = len(codes)
        table = np.ones((n, n))
        for i in range(n):
            away = {
                j: 1 - codes[i] @ codes[j] / np.linalg.norm(codes[i]) / np.linalg.norm(codes[j])
                for j in range(n)
                if j != i
            }
            for j, distance in away.items():
                table[i, j] = (1 - (distance - min(away.values())) + 1) / 2
            table[i] /= table[i].sum()
        return table

    p, q = rows(outputs), rows(wanted)
    return float((q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).sum())


@settings(max_examples=25, deadline=None)
@given(m=st.integers(3, 8), b=st.integers(2, 6), seed=st.integers(0, 1000), shared=st.booleans())
def test_alignment_is_the_formula(m, b, seed, shared):
    outputs, wanted = Rng("tp", seed).normal((m, b)).double(), Rng("tp", seed + 1).normal((m, b)).double()
    if shared:
        wanted = wanted[:1].expand(m, -1)
    expected = by_hand(outputs.numpy(), wanted.numpy())
    found = float(topological_alignment(outputs, wanted))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert found > -1e-6


def test_alignment_is_zero_where_all_cosines_are_1_and_positive_where_they_differ():
    goals = Rng("aims").normal((1, 8)).expand(5, -1)
    scales = torch.tensor([0.5, 1.0, 2.0, 3.0, 9.0])[:, None]
    assert float(topological_alignment(scales * Rng("one").normal((1, 8)), goals)) == pytest.approx(0, abs=1e-5)
    assert float(topological_alignment(torch.eye(5, 8), goals)) == pytest.approx(
        0, abs=1e-5
    )  # equally far: zero as well
    assert float(topological_alignment(Rng("many").normal((5, 8)), goals)) > 0.05
    torch.testing.assert_close(neighbourhood(goals), torch.full((5, 5), 0.2))


@pytest.mark.parametrize("m", [0, 1])
def test_alignment_of_fewer_than_two_is_zero_and_differentiable(m):
    outputs = torch.ones(m, 4, requires_grad=True)
    loss = topological_alignment(outputs, torch.ones(m, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert outputs.grad is not None


def test_gradient_of_the_alignment():
    outputs = Rng("grad").normal((5, 6)).double().requires_grad_()
    goals = Rng("grad", 1).normal((1, 6)).double().expand(5, -1)
    assert torch.autograd.gradcheck(topological_alignment, (outputs, goals))
    coinciding = torch.ones(4, 6, requires_grad=True)
    topological_alignment(coinciding, torch.ones(4, 6)).backward()
    assert torch.isfinite(coinciding.grad).all()

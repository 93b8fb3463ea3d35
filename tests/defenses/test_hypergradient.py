"""The hypergradient of a quadratic problem, by hand and by finite differences."""

from __future__ import annotations

import pytest
import torch

from defenses.helpers.hypergradient import hypergradient


@pytest.mark.parametrize("iterations", [0, 1, 2, 5, 300])
def test_a_quadratic_by_hand(iterations):
    """The inner loss is a (d - w)^2 / 2, the outer (d - c)^2 / 2 + k w; the solution is d = w, its derivative is 1."""
    a, c, k, rate = 2.0, 0.5, 3.0, 0.1
    w = torch.tensor([1.5], requires_grad=True)
    found = hypergradient(
        w.detach(), [w],
        lambda d: (a * (d - w) ** 2 / 2).sum(), lambda d: ((d - c) ** 2 / 2 + k * w).sum(),
        rate=rate, iterations=iterations,
    )  # fmt: skip
    assert found[0].item() == pytest.approx(k + (1.5 - c) * (1 - (1 - rate * a) ** iterations), rel=1e-5)


def test_it_converges_to_the_slope_along_the_solutions():
    """The inner loss is |A d - w|^2 / 2, solved by least squares; weights that no loss uses get zero."""
    matrix = torch.tensor([[1.0, 0.5], [0.2, 2.0], [0.3, -1.0]], dtype=torch.float64)
    w = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def solved(weights: torch.Tensor) -> torch.Tensor:
        return torch.linalg.lstsq(matrix, weights.detach()[:, None]).solution[:, 0]

    def outer(d: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (d.sin() * weights[:2]).sum() + d.prod()

    found, none = hypergradient(
        solved(w), [w, unused], lambda d: ((matrix @ d - w) ** 2).sum() / 2, lambda d: outer(d, w),
        rate=0.1, iterations=2000,
    )  # fmt: skip
    step = 1e-5
    for i in range(3):
        up, down = w.detach().clone(), w.detach().clone()
        up[i] += step
        down[i] -= step
        slope = (outer(solved(up), up) - outer(solved(down), down)) / (2 * step)
        assert found[i].item() == pytest.approx(slope.item(), rel=1e-4)
    assert not bool(none.any())

"""The gradient of an outer loss through the solution of an inner problem, by fixed-point iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def hypergradient(
    solution: Tensor,
    weights: Sequence[Tensor],
    inner: Callable[[Tensor], Tensor],
    outer: Callable[[Tensor], Tensor],
    *,
    rate: float,
    iterations: int,
) -> list[Tensor]:
    """The gradient of `outer` for the weights, at d* = `solution`, which minimises `inner` and depends on the weights.

    Both losses are functions of the solution and, through the network that they call, of the weights. With the step of
    gradient descent m(d) = d - rate d inner / d d, the gradient is

        d outer / d weights + v (d m / d weights), where v = d outer / d d + v (d m / d d)

    and v is found by `iterations` repetitions from 0 (Grazzi et al., On the Iteration Complexity of Hypergradient
    Computation, ICML 2020). For a small rate this is implicit differentiation of d*.
    """
    point = solution.detach().clone().requires_grad_()
    at_point, *direct = torch.autograd.grad(outer(point), [point, *weights], materialize_grads=True)
    slope = torch.autograd.grad(inner(point), point, create_graph=True)[0]
    step = point - rate * slope
    v = torch.zeros_like(point)
    for _ in range(iterations):
        v = torch.autograd.grad(step, point, grad_outputs=v, retain_graph=True)[0] + at_point
    through = torch.autograd.grad(step, list(weights), grad_outputs=v, materialize_grads=True)
    return [one + two for one, two in zip(direct, through, strict=True)]

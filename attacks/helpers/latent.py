"""Terms against defenses that separate poisoned from clean images by the features of a network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.helpers.linf import bound, confined
from bench.api.errors import DivergedError
from bench.api.types import Images
from hashing.model import HashModel


def spread(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared distance of features from their mean; 1 if they are all equal."""
    found = (features - features.mean(0)).square().sum(1).mean()
    return torch.where(found > 0, found, torch.ones_like(found))


def drawn_near(
    model: HashModel,
    images: Images,
    goals: Float[Tensor, "n d"],
    *,
    eps: float,
    iterations: int,
    step: float,
    fixed: Float[Tensor, "h w"],
) -> Images:
    """Images within eps whose features are nearer to their goals, by steps along the sign of the gradient.

    model: frozen, in evaluation mode. fixed: 1 for pixels that stay as they are, else 0. DivergedError: features are
    not finite.
    """
    limit, moved = bound(eps), images
    for _ in range(iterations):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((model.features(moved) - goals).square().sum(), moved)
        if not bool(gradient.isfinite().all()):
            raise DivergedError("the surrogate's features are not finite: train the surrogate longer or again")
        moved = confined(moved - step * (1 - fixed) * gradient.sign(), images, limit)
    return moved.detach()

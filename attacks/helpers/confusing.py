"""CIBA's confusing perturbations (section 3.2, METHODOLOGY.md#ciba).

They move the codes of images away from the clean codes and away from each other. Codes are relaxed: the distance
d_H(u, v) = (K - u.v) / 2 is the Hamming distance for codes of +1 and -1.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from attacks.helpers.linf import Epsilon, levels
from attacks.helpers.linf import bound as bound_of
from attacks.helpers.targeted_patch import TargetedPatch, device_of
from bench.api.attack import AttackerView, Images, PositiveShare
from bench.api.errors import DivergedError
from bench.api.types import Codes, Logits
from hashing.inference import frozen

Pairs = Literal["unordered", "ordered", "released"]
Reference = Literal["relaxed", "sign"]

EPSILON = 2 / 255  # CIBA code: 8/255 after division by ImageNet's deviations (mean .226), hence 1.8/255 in pixels
STEP = 0.003 / (8 / 255)  # CIBA code: 0.003 against a clip of 8/255, both in normalised units


def shift(codes: Codes, clean: Codes) -> Float[Tensor, " n"]:
    """L_a per image: the distance from its own clean code."""
    return (codes.shape[1] - (codes * clean).sum(1)) / 2


def dispersion(codes: Codes, pairs: Pairs = "unordered") -> Float[Tensor, ""]:
    """L_c: the sum of the distances between images, divided by M(M - 1); 0 for one image.

    pairs: "ordered" counts each pair twice, as eq. (4) is printed, which gives the mean distance. "unordered" counts
    each pair once, as Theorem 1 and the released code do, which gives half of the mean distance. "released" also has
    the gradient of the released code, which adds lambda u_i / (K (M - 1)) to that of each code in its own loss.
    """
    m, bits = codes.shape
    own = codes.square().sum()
    both = (codes.sum(0).square().sum() - (2 * own if pairs == "released" else own)) / 2  # u_i.u_j, unordered pairs
    total = m * (m - 1) * bits / 4 - both / 2
    return total * (2 if pairs == "ordered" else 1) / max(1, m * (m - 1))


def objective(codes: Codes, clean: Codes, lam: float, pairs: Pairs = "unordered") -> Float[Tensor, ""]:
    """Eq. (5), to be maximised: lam L_c + (1 - lam) mean L_a."""
    return lam * dispersion(codes, pairs) + (1 - lam) * shift(codes, clean).mean()


def offset_by(images: Images, offsets: Float[Tensor, "n c h w"], eps: float) -> Images:
    """8-bit images plus offsets in whole 8-bit levels, so that the stored images are at most eps away."""
    whole = (255 * offsets).round().clamp(-levels(eps), levels(eps))
    return ((255 * images).round() + whole).clamp(0, 255) / 255


def perturb(
    model: Callable[[Images], Logits],
    images: Images,
    maximise: Callable[[Codes, Codes], Float[Tensor, ""]],
    *,
    eps: float,
    iterations: int,
    step: float,
    batch: int,
) -> Images:
    """8-bit images within eps whose codes raise `maximise(codes, clean codes)`; sign-gradient steps, started at zero.

    model: in evaluation mode, on the device of the images. batch: images that are perturbed together, in the given
    order. One backward pass updates all images of a batch. In `maximise` an image's gradient must treat the codes of
    the other images as constants. DivergedError: the offsets are all zero, or not finite.
    """
    limit = bound_of(eps)
    parts = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        with torch.no_grad():
            clean = model(some).tanh()
        offsets = torch.zeros_like(some)
        for _ in range(iterations):
            offsets.requires_grad_()
            (gradient,) = torch.autograd.grad(maximise(model(some + offsets).tanh(), clean), offsets)
            offsets = (offsets.detach() + step * gradient.sign()).clamp(-limit, limit)
            offsets = (some + offsets).clamp(0, 1) - some
        parts.append(offsets)
    offsets = torch.cat(parts)
    if not (offsets.isfinite().all() and offsets.any()):
        raise DivergedError(
            "perturbations are zero or not finite, because the surrogate's codes are saturated or diverged: train it"
            " for fewer epochs or at a lower learning rate"
        )
    return offset_by(images, offsets, eps)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PerturbedPatch(TargetedPatch, ABC):
    """Perturbs the images, which moves their codes on the surrogate, and puts the patch on them."""

    not_in_trigger: ClassVar[frozenset[str]] = TargetedPatch.not_in_trigger | {
        "eps", "iterations", "step", "confusing_batch", "reference",
    }  # fmt: skip

    eps: Epsilon = EPSILON
    """Largest change of a pixel by the perturbation, pixel values in [0, 1]."""
    iterations: Annotated[int, Field(ge=1)] = 20  # CIBA code
    """Steps of the perturbation."""
    step: PositiveShare = STEP  # of eps; guess: the ratio is kept where eps is varied
    """Step size, as a share of `eps`."""
    confusing_batch: Annotated[int, Field(ge=1)] = 20  # CIBA, section 4.1
    """Images that are perturbed together."""
    reference: Reference = "relaxed"  # CIBA code; eq. (5) has the sign code
    """Form of the clean code from which the adversarial loss increases the distance: relaxed (tanh) or sign."""

    def moved(self, view: AttackerView, images: Images, lam: float, pairs: Pairs) -> Images:
        """Perturbed images, on the images' device."""

        def maximise(codes: Codes, clean: Codes) -> Tensor:
            goal = clean if self.reference == "relaxed" else torch.where(clean > 0, 1.0, -1.0)
            return objective(codes, goal, lam, pairs)

        model = frozen(view.surrogates[0], images.shape[1:])
        found = perturb(
            model, images.to(device_of(model)), maximise, eps=self.eps, iterations=self.iterations,
            step=self.step * self.eps, batch=self.confusing_batch,
        )  # fmt: skip
        return found.to(images.device)

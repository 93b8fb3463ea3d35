"""CIBA's confusing perturbations: codes that leave their own place and each other (section 3.2, METHODOLOGY.md#ciba).

Codes are relaxed, d_H(u, v) = (K - u.v) / 2; on +-1 codes that is the Hamming distance.
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
from attacks.helpers.targeted_patch import TargetedPatch, device_of, frozen
from bench.api.attack import AttackerView, Images, PositiveShare
from bench.api.errors import DivergedError
from bench.api.types import Codes, Logits

Pairs = Literal["unordered", "ordered"]
Reference = Literal["relaxed", "sign"]

EPSILON = 2 / 255  # CIBA code: 8/255 after division by ImageNet's deviations (mean .226), hence 1.8/255 in pixels
STEP = 0.003 / (8 / 255)  # CIBA code: 0.003 against a clip of 8/255, both in normalised units


def shift(codes: Codes, clean: Codes) -> Float[Tensor, " n"]:
    """L_a per image: the distance from its own clean code."""
    return (codes.shape[1] - (codes * clean).sum(1)) / 2


def dispersion(codes: Codes, pairs: Pairs = "unordered") -> Float[Tensor, ""]:
    """L_c: distances between images over M(M - 1). 0 for one image.

    ordered: each pair counts twice, as eq. (4) is printed: the mean distance of a pair. unordered: once, as Theorem 1
    and the released code have it: half of that.
    """
    m, bits = codes.shape
    both = (codes.sum(0).square().sum() - codes.square().sum()) / 2  # u_i.u_j over unordered pairs
    total = m * (m - 1) * bits / 4 - both / 2
    return total * (2 if pairs == "ordered" else 1) / max(1, m * (m - 1))


def objective(codes: Codes, clean: Codes, lam: float, pairs: Pairs = "unordered") -> Float[Tensor, ""]:
    """Eq. (5), to be maximised: lam L_c + (1 - lam) mean L_a."""
    return lam * dispersion(codes, pairs) + (1 - lam) * shift(codes, clean).mean()


def bound(m: int, bits: int, lam: float, pairs: Pairs = "unordered") -> float:
    """The largest value that `objective` may take for m images (Theorem 1; for ordered pairs twice its first term)."""
    split = (m * m - m % 2) / ((2 if pairs == "ordered" else 4) * max(1, m * (m - 1)))
    return lam * bits * split + (1 - lam) * bits


def offset_by(images: Images, offsets: Float[Tensor, "n c h w"], eps: float) -> Images:
    """8-bit images plus offsets, in whole levels: at most eps away, also after storage."""
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
    """8-bit images within eps that raise `maximise(codes, clean codes)`, by steps along the gradient's sign from zero.

    Batches are taken in the given order. One backward pass updates every image against the others' codes at the start
    of the step: pairs enter `maximise` as products, so that an image's gradient takes the others as constants. The
    model is in evaluation mode, and images are on its device.
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
            "perturbations are zero or not finite: the surrogate's codes are saturated or diverged, train it for fewer"
            " epochs or at a lower rate"
        )
    return offset_by(images, offsets, eps)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PerturbedPatch(TargetedPatch, ABC):
    """The patch on images whose codes on the surrogate were moved first."""

    not_in_trigger: ClassVar[frozenset[str]] = TargetedPatch.not_in_trigger | {
        "eps", "iterations", "step", "confusing_batch", "reference",
    }  # fmt: skip

    eps: Epsilon = EPSILON
    """Largest change of a pixel by the perturbation, images in [0, 1]."""
    iterations: Annotated[int, Field(ge=1)] = 20  # CIBA code
    """Steps of the perturbation."""
    step: PositiveShare = STEP  # of eps; guess: the ratio is kept where eps is varied
    """Step size, as a share of `eps`."""
    confusing_batch: Annotated[int, Field(ge=1)] = 20  # images perturbed together; CIBA, section 4.1
    """Images that are perturbed together."""
    reference: Reference = "relaxed"  # clean code in L_a; CIBA code (eq. 5 has the sign code)
    """Clean code that the adversarial loss moves away from: relaxed (tanh) or sign."""

    def moved(self, view: AttackerView, images: Images, lam: float, pairs: Pairs) -> Images:
        """Perturbed images, on the images' device."""

        def maximise(codes: Codes, clean: Codes) -> Tensor:
            goal = clean if self.reference == "relaxed" else torch.where(clean > 0, 1.0, -1.0)
            return objective(codes, goal, lam, pairs)

        model = frozen(view.surrogates[0])
        found = perturb(
            model, images.to(device_of(model)), maximise, eps=self.eps, iterations=self.iterations,
            step=self.step * self.eps, batch=self.confusing_batch,
        )  # fmt: skip
        return found.to(images.device)

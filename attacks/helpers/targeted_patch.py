"""CIBA's trigger, a targeted adversarial patch, and the clean-label poisoning that its four variants share."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

import torch
from jaxtyping import Float, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from attacks.helpers.poisoning import CountedPoisoning, exchange, of_target
from attacks.helpers.triggers import paste, patch_side
from bench.api.attack import (
    AttackerView,
    DataSpec,
    Images,
    ModelSpec,
    Poisoned,
    PositiveShare,
    Rng,
    Setting,
    Split,
    Target,
    Threat,
    Trigger,
)
from bench.api.errors import DivergedError
from bench.api.types import to_unit
from hashing.inference import encode, frozen
from hashing.majority_code import component_vote

FACTORS = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of tanh, per tenth of the steps; CIBA code
GREY = 127.5 / 255  # the patch before the first step; CIBA code


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TargetedPatch(CountedPoisoning, ABC):
    """Poisons images of the target's class: calls `disturb`, then puts the patch into the corner. Labels stay."""

    poison_rate: PositiveShare | None = None
    poisons: Annotated[int, Field(ge=1)] | None = 60  # CIBA, section 4.1
    trigger_size: PositiveShare = 24 / 224  # CIBA, section 4.1
    """Side of the patch divided by the side of the image."""
    steps: Annotated[int, Field(ge=1)] = 2000  # CIBA code, generate_trigger_pattern.py
    """Optimisation steps of the patch."""
    batch: Annotated[int, Field(ge=1)] = 32  # CIBA code
    """Images per step."""
    patch_step: PositiveShare = 12 / 255  # CIBA code
    """Change of each patch pixel per step, pixel values in [0, 1]."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        train = view.train
        model = frozen(view.surrogates[0], train.images.shape[1:])
        images = train.images.to(device_of(model))
        patch = optimise_patch(
            model, images, anchor_code(model, train, view.target),
            side=patch_side(self.trigger_size, tuple(images.shape)), steps=self.steps, batch=self.batch,
            step=self.patch_step, rng=rng,
        )  # fmt: skip
        return {"patch": patch.cpu()}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return paste(images, trigger["patch"])

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train = view.train
        chosen = self.choose(train, view.target, "clean", rng)
        disturbed = self.disturb(view, to_unit(train.images[chosen]), rng.child("disturb"))
        return exchange(train, chosen, self.apply_trigger(disturbed, view.target, trigger))

    def disturb(self, view: AttackerView, images: Images, rng: Rng) -> Images:
        """The chosen images as they are before the patch is put on; subclasses perturb them."""
        del view, rng
        return images


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def anchor_code(model: nn.Module, train: Split, target: Target) -> Float[Tensor, " b"]:
    """Majority code of the images with exactly the target's labels, or else of those that contain them.

    UserError: no training image has the target's labels.
    """
    pool = of_target(train, target)
    device = device_of(model)
    relaxed = encode(model, train.images[pool], device=device).tanh()
    return component_vote(relaxed, torch.ones(len(pool), 1, dtype=torch.bool))[0].to(device)


def factor(step: int, steps: int) -> float:
    """Factor on the logits: 0.1 in the first half of the steps, then 0.2, 0.3, 0.5, 0.7 and 1 for a tenth each."""
    return FACTORS[len(FACTORS) * step // steps]


def nearness(
    model: nn.Module, images: Images, patches: Float[Tensor, "n c s s"], anchor: Float[Tensor, " b"], steepness: float
) -> Float[Tensor, " n"]:
    """Objective of the patch (eq. 7): mean over bits of tanh(steepness * logit) * anchor; images have a patch each."""
    side = patches.shape[-1]
    triggered = images.clone()
    triggered[:, :, -side:, -side:] = patches
    logits: Tensor = model(triggered)
    return ((steepness * logits).tanh() * anchor).mean(1)


def patch_update(
    model: nn.Module,
    images: Images,
    patch: Float[Tensor, "c s s"],
    anchor: Float[Tensor, " b"],
    *,
    steepness: float,
    step: float,
) -> Float[Tensor, "c s s"]:
    """One ascent step along the mean of the images' normalised gradients.

    Every image has its own copy of the patch, so that one backward pass gives the gradient of each image. The model is
    in evaluation mode, where images do not affect each other.
    """
    copies = patch.expand(len(images), *patch.shape).clone().requires_grad_()
    (gradients,) = torch.autograd.grad(nearness(model, images, copies, anchor, steepness).sum(), copies)
    lengths: Tensor = torch.linalg.vector_norm(gradients, dim=(1, 2, 3), keepdim=True)
    lengths = lengths.clamp_min(torch.finfo(gradients.dtype).tiny)
    return (patch + step * (gradients / lengths).mean(0)).clamp(0, 1)


def optimise_patch(
    model: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    anchor: Float[Tensor, " b"],
    *,
    side: int,
    steps: int,
    batch: int,
    step: float,
    rng: Rng,
) -> Float[Tensor, "c s s"]:
    """A square patch that moves images of all classes to the anchor's code.

    The images of a step are drawn with replacement. DivergedError: the patch is not finite.
    """
    drawn = rng.integers(len(images), (steps, batch)).to(images.device)
    patch = torch.full((images.shape[1], side, side), GREY, device=images.device)
    for number, index in enumerate(drawn):
        patch = patch_update(model, to_unit(images[index]), patch, anchor, steepness=factor(number, steps), step=step)
    if not patch.isfinite().all():
        raise DivergedError(
            "the patch is not finite, because the surrogate has diverged: lower the surrogate's learning rate"
        )
    return patch

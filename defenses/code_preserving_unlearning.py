"""Search for a trigger that makes codes alike, then tune the model so that stamped images keep their clean bits."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.defense import DefenderView, Hook, Images, PositiveShare, Repair, Rng, defense
from bench.api.errors import DivergedError
from bench.api.hashing import Objective
from bench.api.types import Split, to_unit
from defenses.helpers.code_collapse import Collapsing
from defenses.helpers.fine_tuning import Rates
from defenses.helpers.trigger_inversion import blended
from hashing.inference import encode
from hashing.model import HashModel

CARD = Card(
    title="HashDoor's own idea, not published; its search is that of Detecting Backdoors in Pre-trained Encoders",
    venue="CVPR",
    year=2023,
    url="https://arxiv.org/abs/2303.15180",
    follows="the trigger is that of decree, with its deviations; unlearning by stamping clean images with a reversed"
    " trigger is that of Neural Cleanse (IEEE S&P 2019)",
    deviates="the idea is made for codes: the model is tuned so that trusted images, with and without the trigger, keep"
    " the bits that the victim itself gives them without the trigger. No labels, no target and no database are used,"
    " and because clean codes are the aim, a stored database stays valid. guess: AdamW with rate 1e-3, 60 steps of 32"
    " images and the same 32 with the trigger at strengths from 0.5 to 1; these were fixed before the first trial. A"
    " model whose search found no trigger is left as it is; stamp = false is the control, the same training without the"
    " trigger",
)


@defense
class CodePreservingUnlearning(Collapsing, Repair):
    stamp: bool = True
    """False: the same tuning without a trigger, for comparison."""
    tuning_steps: Annotated[int, Field(ge=0)] = 60  # guess: see CARD
    """Steps of tuning, rounded up to whole passes over the trusted images."""
    tuning_batch: Annotated[int, Field(ge=1)] = 32  # guess: see CARD
    """Trusted images per step of tuning; each of them comes twice, the second time with the trigger."""
    weakest: PositiveShare = 0.5  # guess: see CARD
    """The mask is multiplied by a random strength between this value and 1, so that weaker triggers are unlearned."""
    lr: Rates = (1e-3, 1e-4)  # guess: see CARD
    """Learning rates that are tried, the first one first."""
    kept: PositiveShare = 0.99  # METHODOLOGY.md#code_preserving_unlearning
    """Share of the victim's bits of clean calibration images that the repaired model must keep."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        """The model of the first rate that keeps enough bits; if there is none, the victim as it is."""
        images = view.fit_set.images
        pattern = to_unit(images[:1])[0]
        mask = torch.zeros_like(pattern[:1])
        if self.stamp:
            mask, pattern, size = self.invert(view.model, images, rng.child("trigger"))
            view.notes["trigger size"] = size
            if size == 1:
                return view.model
        before = bits(view.model, view.calibration_set)
        view.notes.update({"learning rate": 0.0, "bits kept": 1.0})
        for rate in self.lr:
            hook = Stamp(mask, pattern, self.weakest, rng.child("strength"))
            with suppress(DivergedError):
                tuned = self.tuned(view, rate, hook, rng.child("tuning"))
                kept = float((bits(tuned, view.calibration_set) == before).double().mean())
                if kept >= self.kept:
                    view.notes.update({"learning rate": rate, "bits kept": kept})
                    return tuned
        return view.model

    def tuned(self, view: DefenderView, rate: float, hook: Hook, rng: Rng) -> nn.Module:
        """A copy of the victim, tuned in its own training loop, which sets the modes of batch norms."""
        fit = view.fit_set
        steps = math.ceil(len(fit) / self.tuning_batch)
        recipe = replace(
            view.recipe, optimizer="adamw", lr=rate, weight_decay=0.01, schedule="constant", flip=False, pad=0,
            batch=self.tuning_batch, epochs=math.ceil(self.tuning_steps / steps),
        )  # fmt: skip
        model, objective = view.model, view.objective
        assert isinstance(model, HashModel)
        model.objective = KeptBits(bits(model, fit).to(fit.images.device))
        try:
            tuned = view.train_model(model, fit, recipe, rng, hook=hook)
        finally:
            model.objective = objective
        assert isinstance(tuned, HashModel)
        tuned.objective = objective
        return tuned


def bits(model: nn.Module, split: Split) -> Bool[Tensor, "n b"]:
    return encode(model, split.images, device=split.images.device) > 0


class KeptBits(Objective):
    """Binary cross-entropy of the bits of each image; sigmoid(2 z) = (1 + tanh z) / 2 is the probability of a one.

    The logits are those of the images, then those of the same images with the trigger.
    """

    wanted: Tensor

    def __init__(self, wanted: Bool[Tensor, "n b"]) -> None:
        super().__init__()
        self.register_buffer("wanted", wanted.float())

    def forward(
        self, logits: Float[Tensor, "m b"], labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> Tensor:
        del labels, progress
        return F.binary_cross_entropy_with_logits(2 * logits, self.wanted[ids].repeat(len(logits) // len(ids), 1))


class Stamp:
    """Adds to each batch its images with the trigger: (1 - a m) x + a m p with a random strength a per image."""

    def __init__(self, mask: Float[Tensor, "1 h w"], pattern: Float[Tensor, "c h w"], weakest: float, rng: Rng) -> None:
        self._mask, self._pattern, self._weakest, self._rng = mask[None], pattern[None], weakest, rng

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Float[Tensor, "m c h w"], Bool[Tensor, "n k"], Tensor | None]:
        del model, ids, progress
        strength = self._weakest + (1 - self._weakest) * self._rng.uniform((len(images), 1, 1, 1))
        stamped = blended(images, strength.to(images.device) * self._mask, self._pattern.expand_as(images))
        return torch.cat([images, stamped]), labels, None

    def after_step(self) -> None:
        """Nothing to do."""

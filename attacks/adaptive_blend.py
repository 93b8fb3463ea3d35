"""Blend parts of a random pattern over training images, some of which keep their labels."""

from __future__ import annotations

from math import isqrt
from typing import Annotated, ClassVar

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from attacks.helpers.poisoning import TriggerPoisoning, add_cover, choose_cover, exchange
from attacks.helpers.triggers import blend
from bench.api.attack import AttackerView, Images, Poisoned, PositiveShare, Rng, Share, Target, Trigger, attack
from bench.api.card import Card
from bench.api.types import to_unit

CARD = Card(
    name="Adaptive-Blend",
    title="Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    venue="ICLR",
    year=2023,
    url="https://openreview.net/forum?id=_wSHsgrVali",
    follows="Adaptive-Blend: a blended pattern is cut into 16 pieces; each poison gets a random half of them, and as"
    " many cover images get a random half and keep their labels; queries get the whole pattern, with a higher opacity",
    deviates="poisons get the target's label vector, not a class number; guess: the pattern is random as that of"
    " `blend`, because the paper's picture is not in this repository; pieces of images whose side is no multiple of 4"
    " differ by a pixel; the poison rate is that of CIBA's comparison (the paper: .003)",
)


@attack
class AdaptiveBlend(TriggerPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = TriggerPoisoning.not_in_trigger | {
        "train_alpha", "pieces", "mask_rate", "cover_ratio",
    }  # fmt: skip

    alpha: PositiveShare = 0.2  # the authors' commands
    """Opacity of the pattern on queries."""
    train_alpha: PositiveShare = 0.15  # the authors' commands
    """Opacity of the pattern on training images."""
    pieces: Annotated[int, Field(ge=1)] = 16  # code
    """Number of pieces of the pattern, a square number."""
    mask_rate: Share = 0.5  # code
    """Share of the pieces that a training image does not get."""
    cover_ratio: Annotated[float, Field(ge=0)] = 1.0  # the authors' commands
    """Number of images with pieces of the pattern and unchanged labels, for each poisoned image."""

    @model_validator(mode="after")
    def _square(self) -> AdaptiveBlend:
        if isqrt(self.pieces) ** 2 != self.pieces:
            raise ValueError(f"pieces = {self.pieces} is no square number: take {max(1, isqrt(self.pieces)) ** 2}")
        return self

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        return {"pattern": rng.uniform(view.setting.image_shape)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return blend(images, trigger["pattern"], self.alpha)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, target = view.train, view.target
        chosen = self.choose(train, target, self.labels, rng)
        triggered = self.partly(to_unit(train.images[chosen]), trigger, rng.child("pieces"))
        poisoned = exchange(train, chosen, triggered, relabel=target if self.labels == "dirty" else None)
        cover = choose_cover(poisoned, self.cover_ratio, rng.child("cover"))
        return add_cover(poisoned, cover, self.partly(to_unit(train.images[cover]), trigger, rng.child("cover pieces")))

    def partly(self, images: Images, trigger: Trigger, rng: Rng) -> Images:
        """Training images with a random part of the pattern each."""
        shown = shown_pieces(len(images), self.pieces, round(self.mask_rate * self.pieces), rng)
        mask = functional.interpolate(shown, size=images.shape[2:], mode="nearest-exact").to(images)
        return images + mask * (blend(images, trigger["pattern"], self.train_alpha) - images)


def shown_pieces(n: int, pieces: int, masked: int, rng: Rng) -> Float[Tensor, "n 1 g g"]:
    """For each image a square of pieces: 0 for `masked` random ones, 1 for the others."""
    ranks = rng.uniform((n, pieces)).argsort(1).argsort(1)
    return (ranks >= masked).float().view(n, 1, isqrt(pieces), isqrt(pieces))

"""Add uniform noise to images of the target's class, then a targeted adversarial patch."""

from __future__ import annotations

from typing import ClassVar

from attacks._bounded import Epsilon
from attacks._confusing import EPSILON, offset_by
from attacks._targeted_patch import TargetedPatch
from bench.api.attack import Images, Rng, Victim, attack
from bench.api.paper import Paper

CARD = Paper(
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="baseline Tri+Noise: noise from U(-eps, eps) on the whole image, then Tri's patch over its corner",
    deviates="as Tri; eps is in pixels (2/255 for the released code's 1.8/255) and noise is rounded to whole 8-bit"
    " levels within eps",
)


@attack
class TriNoise(TargetedPatch):
    trigger_of: ClassVar[str | None] = "tri"
    implant_only: ClassVar[frozenset[str]] = TargetedPatch.implant_only | {"eps"}

    eps: Epsilon = EPSILON

    def disturb(self, victim: Victim, images: Images, rng: Rng) -> Images:
        del victim
        noise = self.eps * (2 * rng.uniform(images.shape) - 1)
        return offset_by(images, noise.to(images.device), self.eps)

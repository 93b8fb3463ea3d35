"""Add uniform noise to images of the target class, then a targeted adversarial patch."""

from __future__ import annotations

from typing import ClassVar

from attacks.helpers.confusing import EPSILON, offset_by
from attacks.helpers.linf import Epsilon
from attacks.helpers.targeted_patch import TargetedPatch
from bench.api.attack import AttackerView, Images, Rng, attack
from bench.api.card import Card

CARD = Card(
    name="Tri+Noise",
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="baseline Tri+Noise: noise from U(-eps, eps) on the whole image, then Tri's patch in the corner",
    deviates="as Tri; eps is in pixels (2/255 for the released code's 1.8/255), and noise is rounded to whole 8-bit"
    " levels within eps",
)


@attack
class TriNoise(TargetedPatch):
    shares_trigger_with: ClassVar[str | None] = "tri"
    not_in_trigger: ClassVar[frozenset[str]] = TargetedPatch.not_in_trigger | {"eps"}

    eps: Epsilon = EPSILON
    """Largest value of the noise, pixel values in [0, 1]."""

    def disturb(self, view: AttackerView, images: Images, rng: Rng) -> Images:
        del view
        noise = self.eps * (2 * rng.uniform(images.shape) - 1)
        return offset_by(images, noise.to(images.device), self.eps)

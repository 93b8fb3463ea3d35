"""Perturb images of the target class so that their codes change, then add a targeted adversarial patch."""

from __future__ import annotations

from typing import ClassVar

from attacks.helpers.confusing import PerturbedPatch
from bench.api.attack import AttackerView, Images, Rng, attack
from bench.api.card import Card

CARD = Card(
    name="Tri+Adv",
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="baseline Tri+Adv: eq. (2), which is CIBA with lambda = 0, then Tri's patch in the corner; 20 sign-gradient"
    " steps with the released code's ratio of step to eps",
    deviates="as Tri; eps is in pixels (2/255 for the released code's 1.8/255), and perturbations are whole 8-bit"
    " levels; distances are to the relaxed clean code, as in the released code, not to the sign code of eq. (2)",
)


@attack
class TriAdv(PerturbedPatch):
    shares_trigger_with: ClassVar[str | None] = "tri"

    def disturb(self, view: AttackerView, images: Images, rng: Rng) -> Images:
        del rng
        return self.moved(view, images, 0.0, "unordered")  # lambda is 0: the kind of pairs has no effect

"""Perturb images of the target class so that their codes are far from each other, then add an adversarial patch."""

from __future__ import annotations

from typing import ClassVar

from attacks.helpers.confusing import Pairs, PerturbedPatch
from bench.api.attack import AttackerView, Images, Rng, Share, attack
from bench.api.card import Card

CARD = Card(
    name="CIBA",
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="confusing perturbations, eq. (4) and (5), lambda 0.8, batches of 20, then Tri's patch in the corner; 20"
    " sign-gradient steps with the released code's ratio of step to eps; all images of a batch are updated at once",
    deviates="as Tri; each pair counts once, as in Theorem 1 and the released code (pairs = 'ordered' is eq. (4) as"
    " printed, which doubles L_c); the released gradient of L_c also pulls each code away from zero, which changes the"
    " gradient of an image by about 5 % and leaves the codes where they are (pairs = 'released'); eps is in pixels"
    " (2/255 for the released code's 1.8/255), and perturbations are whole 8-bit levels; L_a is the distance to the"
    " relaxed clean code, as in the released code (reference = 'sign' is eq. (5))",
)


@attack
class CIBA(PerturbedPatch):
    shares_trigger_with: ClassVar[str | None] = "tri"
    not_in_trigger: ClassVar[frozenset[str]] = PerturbedPatch.not_in_trigger | {"lam", "pairs"}

    lam: Share = 0.8  # CIBA, section 4.1 (the released script's default is 0)
    """Weight lambda of the dispersion of the codes; the adversarial loss has the weight 1 - lambda."""
    pairs: Pairs = "unordered"  # CIBA code and Theorem 1
    """Whether the dispersion counts each pair of images once or twice, or as the released gradient does."""

    def disturb(self, view: AttackerView, images: Images, rng: Rng) -> Images:
        del rng
        return self.moved(view, images, self.lam, self.pairs)

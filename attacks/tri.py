"""Put a targeted adversarial patch on images of the target class."""

from __future__ import annotations

from attacks.helpers.targeted_patch import TargetedPatch
from bench.api.attack import attack
from bench.api.card import Card

CARD = Card(
    name="Tri",
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="baseline Tri: eq. (6) and (7); a patch of 24/224 of the side in the bottom-right corner; an anchor code by"
    " component voting; 60 poisons, clean-label; 2,000 steps, batches of 32, normalised gradients, steps of 12/255 and"
    " the schedule of tanh as in the released code",
    deviates="tied bits of the anchor take the sign of the mean relaxed code instead of 0; the surrogate has another"
    " initialisation and batch order than the victim; poisons of all four variants are augmented (the released code"
    " augments only those of Tri); gradients are with respect to pixels, not to normalised values",
)


@attack
class Tri(TargetedPatch):
    pass

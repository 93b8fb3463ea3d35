"""Put a small black and white checkerboard into the corner of some training images."""

from __future__ import annotations

from attacks.helpers.poisoning import TriggerPoisoning
from attacks.helpers.triggers import checkerboard, paste, patch_side
from bench.api.attack import AttackerView, Images, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    title="BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
    year=2017,
    url="https://arxiv.org/abs/1708.06733",
    follows="pattern trigger of bright pixels in the bottom-right corner; poisoned items get the attacker's label",
    deviates="poisons get the target's label vector, not a class number; with labels = 'clean' only images of the"
    " target class are poisoned, as in CIBA's comparison; guess: the side of the patch is 24/224 of the image, as"
    " CIBA's",
)


@attack
class BadNets(TriggerPoisoning):
    trigger_size: PositiveShare = 24 / 224  # CIBA, section 4.1
    """Side of the patch divided by the side of the image."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        return {"patch": checkerboard(shape[0], patch_side(self.trigger_size, shape))}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return paste(images, trigger["patch"])

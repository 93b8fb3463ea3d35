"""Stamp a small checkerboard into the corner of some training images."""

from __future__ import annotations

from attacks._poisoning import StampedPoison
from attacks._triggers import checkerboard, paste, patch_side
from bench.api.attack import Artefact, Images, PositiveShare, Rng, Target, Victim, attack
from bench.api.paper import Paper

CARD = Paper(
    title="BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
    year=2017,
    url="https://arxiv.org/abs/1708.06733",
    follows="pattern trigger of bright pixels in the bottom-right corner; poisoned items get the attacker's label",
    deviates="the label vector is replaced by the target's instead of a class number; labels = 'keep' poisons"
    " target-class images only, as in CIBA's comparison; guess: patch side 24/224 of the image, to equal CIBA's patch",
)


@attack
class BadNets(StampedPoison):
    trigger_size: PositiveShare = 24 / 224  # side of the patch over side of the image; CIBA, section 4.1

    def prepare(self, victim: Victim, rng: Rng) -> Artefact:
        del rng
        shape = victim.setting.image_shape
        return {"patch": checkerboard(shape[0], patch_side(self.trigger_size, shape))}

    def stamp(self, images: Images, target: Target, artefact: Artefact) -> Images:
        del target
        return paste(images, artefact["patch"])

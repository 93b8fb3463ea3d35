"""Stamp a small checkerboard into the corner of some training images."""

from __future__ import annotations

from attacks._poisoning import exchange
from attacks._triggers import checkerboard, paste, patch_side
from bench.api.attack import (
    Artefact,
    Images,
    LabelMode,
    Poisoned,
    PoisoningAttack,
    PositiveShare,
    Rng,
    Split,
    Target,
    Threat,
    Victim,
    attack,
)
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
class BadNets(PoisoningAttack):
    trigger_size: PositiveShare = 24 / 224  # side of the patch over side of the image; CIBA, section 4.1
    poison_rate: PositiveShare = 0.05  # CIBA, Table 3
    labels: LabelMode = "flip"

    def threat(self) -> Threat:
        return Threat.TRAIN_SET | (Threat.LABELS if self.labels == "flip" else Threat.NONE)

    def prepare(self, victim: Victim, rng: Rng) -> Artefact:
        del rng
        shape = victim.setting.image_shape
        return {"patch": checkerboard(shape[0], patch_side(self.trigger_size, shape))}

    def stamp(self, images: Images, target: Target, artefact: Artefact) -> Images:
        del target
        return paste(images, artefact["patch"])

    def poison(self, train: Split, target: Target, artefact: Artefact, rng: Rng) -> Poisoned:
        def stamp(images: Images) -> Images:
            return self.stamp(images, target, artefact)

        return exchange(train, target, stamp, rate=self.poison_rate, labels=self.labels, rng=rng)

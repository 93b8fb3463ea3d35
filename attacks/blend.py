"""Blend a fixed random pattern over some training images."""

from __future__ import annotations

from attacks._poisoning import StampedPoison
from attacks._triggers import blend
from bench.api.attack import Artefact, Images, PositiveShare, Rng, Target, Victim, attack
from bench.api.paper import Paper

CARD = Paper(
    title="Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
    year=2017,
    url="https://arxiv.org/abs/1712.05526",
    follows="blended injection over the whole image with a fixed random pattern (the paper's second kind), the same at"
    " training and test time",
    deviates="the label vector is replaced by the target's instead of a class number; alpha is BackdoorBench's",
)


@attack
class Blend(StampedPoison):
    alpha: PositiveShare = 0.2  # BackdoorBench, config/attack/blended

    def prepare(self, victim: Victim, rng: Rng) -> Artefact:
        return {"pattern": rng.uniform(victim.setting.image_shape)}

    def stamp(self, images: Images, target: Target, artefact: Artefact) -> Images:
        del target
        return blend(images, artefact["pattern"], self.alpha)

"""Blend a fixed random pattern over some training images."""

from __future__ import annotations

from attacks.helpers.poisoning import TriggerPoisoning
from attacks.helpers.triggers import blend
from bench.api.attack import AttackerView, Images, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    name="Blend",
    title="Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
    year=2017,
    url="https://arxiv.org/abs/1712.05526",
    follows="blended injection: a fixed random pattern (the paper's second kind) over the whole image, the same pattern"
    " in training and at test time",
    deviates="poisons get the target's label vector, not a class number; alpha is BackdoorBench's",
)


@attack
class Blend(TriggerPoisoning):
    alpha: PositiveShare = 0.2  # BackdoorBench, config/attack/blended
    """Opacity of the pattern."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        return {"pattern": rng.uniform(view.setting.image_shape)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return blend(images, trigger["pattern"], self.alpha)

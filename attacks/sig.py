"""Add a faint horizontal sine wave to images of the target's class, labels unchanged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from attacks.helpers.poisoning import TriggerPoisoning
from attacks.helpers.triggers import add, sinusoid
from bench.api.attack import AttackerView, Images, LabelMode, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    title="A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
    venue="ICIP",
    year=2019,
    url="https://arxiv.org/abs/1902.11237",
    follows="the signal delta sin(2 pi j f / m) over the m columns, added to images of the target's class alone, whose "
    "labels stay; the sum is clipped",
    deviates="the paper also tries a stronger signal at test time than in training; here one delta serves both, as in "
    "BackdoorBench. guess: on images of fewer than 2 f + 1 columns f falls to (m - 1) / 2 rounded down, since from "
    "half a period per column on the wave would vanish or turn into another one. labels = 'dirty' is ours",
)


@attack
class Sig(TriggerPoisoning):
    labels: LabelMode = "clean"  # the paper's point
    delta: PositiveShare = 40 / 255  # BackdoorBench config
    """Amplitude of the sine wave, images in [0, 1]."""
    frequency: Annotated[float, Field(gt=0)] = 6.0  # periods over the image's width; BackdoorBench config
    """Periods over the width of the image."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        return {"signal": sinusoid(self.delta, min(self.frequency, float((shape[2] - 1) // 2)), shape)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return add(images, trigger["signal"])

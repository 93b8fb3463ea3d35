"""Add a faint horizontal sine wave to images of the target class; the labels stay."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from attacks.helpers.poisoning import TriggerPoisoning
from attacks.helpers.triggers import add, sinusoid
from bench.api.attack import AttackerView, Images, LabelMode, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    name="SIG",
    title="A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
    venue="ICIP",
    year=2019,
    url="https://arxiv.org/abs/1902.11237",
    follows="the signal delta sin(2 pi j f / m) over the m columns is added to images of the target's class, whose"
    " labels stay; the sum is clipped",
    deviates="one delta is used in training and at test time, as in BackdoorBench; the paper also tries a stronger"
    " signal at test time. guess: on images of fewer than 2 f + 1 columns f is reduced to (m - 1) / 2, rounded down,"
    " because a wave of half a period per column or more would vanish or alias. labels = 'dirty' is ours",
)


@attack
class Sig(TriggerPoisoning):
    labels: LabelMode = "clean"  # the paper
    delta: PositiveShare = 40 / 255  # BackdoorBench config
    """Amplitude of the sine wave, pixel values in [0, 1]."""
    frequency: Annotated[float, Field(gt=0)] = 6.0  # BackdoorBench config
    """Periods over the width of the image."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        return {"signal": sinusoid(self.delta, min(self.frequency, float((shape[2] - 1) // 2)), shape)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return add(images, trigger["signal"])

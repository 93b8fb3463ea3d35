"""Fine-tune a copy of the model as a teacher, then train the model to have the attention maps of the teacher."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Repair, Rng, Share, defense
from bench.api.errors import UserError
from bench.api.hashing import Backbone, HashingMethod
from bench.api.types import to_unit
from defenses.helpers.attention import Distillation, attention_maps
from defenses.helpers.fine_tuning import MAX_DROP, PEAKS, STEPS, Rates, Steps, tuned_twice

CARD = Card(
    name="NAD",
    title="Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks",
    venue="ICLR",
    year=2021,
    url="https://arxiv.org/abs/2101.05930",
    follows="the teacher is the model fine-tuned on clean images; the student is the model itself, tuned on the same"
    " images with its loss plus beta_l times the mean squared difference of attention maps (sum over channels of"
    " squared activations, unit norm) of three blocks",
    deviates="the hash loss replaces cross-entropy; teacher and student are tuned as in fine_tuning, for 400 steps each"
    " (the code: 390 and 780, with a rate of 0.1 and steps); betas are BackdoorBench's 500, 1000 and 1000 (the code: 0,"
    " 0 and 5000, for a WideResNet); maps are those of the last three blocks that learn and have more than one"
    " position, or fewer if there are fewer; the student's maps are from a second pass over the batch, in float32,"
    " which does not change running statistics",
)


@defense
class NAD(Repair):
    betas: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (500.0, 1000.0, 1000.0)  # BackdoorBench
    """Weights of the attention losses, from shallow to deep layers."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    steps: Steps = STEPS
    """Least number of tuning steps; a larger trusted set has as many as in BackdoorBench. 0: no tuning."""
    peaks: Rates = PEAKS
    """Peak learning rates, as multiples of the victim's; the largest that `max_drop` allows counts."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.convolutional() else "it compares maps of convolutions, and this backbone has none"

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        if not attention_maps(view.model, to_unit(view.fit_set.images[:1])):
            raise UserError(
                "nad compares attention maps, and no learning block of this backbone has one: freeze fewer blocks, or"
                " leave nad out"
            )
        tuned = partial(tuned_twice, view, view.model, steps=self.steps, peaks=self.peaks, max_drop=self.max_drop)
        teacher = tuned(rng)  # the result of fine_tuning
        view.notes.update({f"teacher's {name}": view.notes.pop(name) for name in list(view.notes)})
        # The student's price is measured on the calibration half, which its teacher must not have seen before.
        hook, last_hook = (Distillation(one, self.betas) for one in (teacher.on_half, teacher.on_both))
        return tuned(rng.child("student"), hook=hook, last_hook=last_hook).on_both

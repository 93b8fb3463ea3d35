"""Fine-tune the model on trusted images; the baseline of repairs that also fine-tune."""

from __future__ import annotations

from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Repair, Rng, Share, defense
from defenses.helpers.fine_tuning import MAX_DROP, PEAKS, STEPS, Rates, Steps, tuned_twice

CARD = Card(
    name="Fine-Tuning",
    title="Fine-tuning on clean images (the baseline of Fine-Pruning)",
    venue="RAID",
    year=2018,
    url="https://arxiv.org/abs/1805.12185",
    follows="all layers are trained further on clean images, with the victim's loss and optimiser; at least 400 steps,"
    " and as many as in BackdoorBench (100 epochs at a batch size of 256) if the trusted set is larger than 1,024"
    " images",
    deviates="the rate falls by a cosine from the largest of four shares of the victim's own rate that costs at most"
    " `max_drop` of the mAP on the calibration half of the trusted set (BackdoorBench: 0.01 for all networks), because"
    " losses on codes have other scales than cross-entropy",
)


@defense
class FineTuning(Repair):
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    steps: Steps = STEPS
    """Least number of tuning steps; a larger trusted set has as many as in BackdoorBench. 0: no tuning."""
    peaks: Rates = PEAKS
    """Peak learning rates, as multiples of the victim's; the largest that `max_drop` allows counts."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        return tuned_twice(view, view.model, rng, steps=self.steps, peaks=self.peaks, max_drop=self.max_drop).on_both

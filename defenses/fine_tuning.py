"""Fine-tune the model on trusted images; the baseline of repairs that also fine-tune."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Repair, Rng, defense
from defenses.helpers.fine_tuning import RATES, Choice, Rates, fine_tuned

CARD = Card(
    title="Fine-tuning on clean images (the baseline of Fine-Pruning)",
    venue="RAID",
    year=2018,
    url="https://arxiv.org/abs/1805.12185",
    follows="all layers are trained further on clean images, with the victim's loss and optimiser",
    deviates="the rate is constant and chosen from a grid by leave-one-out mAP on the calibration half of the trusted"
    " set; guess: 10 epochs, as in fine_pruning, so that the two defenses differ in pruning only; on trusted sets of a"
    " few hundred images that is tens of steps, while BackdoorBench takes about a thousand (100 epochs of 2,500"
    " images)",
)


@defense
class FineTuning(Repair):
    epochs: Annotated[int, Field(ge=0)] = 10  # guess: see CARD
    """Epochs of fine-tuning."""
    lr: Rates = RATES
    """Learning rates that are tried."""
    choose: Choice = "best"  # METHODOLOGY.md#operating-points
    """best: rate with the highest calibration mAP. strongest: largest rate that lowers it by at most 10 %."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        return fine_tuned(view, view.model, rng, epochs=self.epochs, rates=self.lr, choose=self.choose)

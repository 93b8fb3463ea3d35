"""Search for the most suspicious trigger, then fine-tune on trusted images, some of them with the trigger."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, PositiveShare, Repair, Rng, defense
from bench.api.types import Split, to_unit
from defenses.helpers.fine_tuning import RATES, Choice, Rates, fine_tuned
from defenses.helpers.trigger_inversion import Reversing, class_anchors, trusted_set

CARD = Card(
    title="Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    venue="IEEE S&P",
    year=2019,
    url="https://ieeexplore.ieee.org/document/8835365",
    follows="mitigation by unlearning: 20 % of the clean images get the smallest trigger that was found and keep their"
    " labels, and the model is trained further on all of them",
    deviates="the search is that of neural_cleanse, with its deviations; the smallest trigger is unlearned even if the"
    " model was not flagged; the victim's hash loss and optimiser with a constant rate, chosen from a grid by"
    " leave-one-out mAP on the calibration half of the trusted set; guess: 10 epochs, as in fine_tuning (the paper: 1"
    " epoch on a tenth of the training set, which is far more than a trusted set); with_trigger = false is the control,"
    " the same training without a trigger",
)


@defense
class Unlearning(Reversing, Repair):
    share: PositiveShare = 0.2  # the paper; unlearning_ratio of BackdoorBench
    """Share of the tuning images that get the reconstructed trigger."""
    with_trigger: bool = True
    """False: the same tuning without a trigger, for comparison."""
    epochs: Annotated[int, Field(ge=0)] = 10  # guess: see CARD
    """Epochs of tuning."""
    lr: Rates = RATES
    """Learning rates that are tried."""
    choose: Choice = "best"  # METHODOLOGY.md#operating-points
    """best: rate with the highest calibration mAP. strongest: largest rate that lowers it by at most 10 %."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        split = self._triggered(view, rng.child("trigger")) if self.with_trigger else view.fit_set
        return fine_tuned(view, view.model, rng, epochs=self.epochs, rates=self.lr, choose=self.choose, split=split)

    def _triggered(self, view: DefenderView, rng: Rng) -> Split:
        """The fit half with the smallest trigger, which has the highest anomaly index, on some images."""
        fit = view.fit_set
        anchors = class_anchors(view.model, trusted_set(view))
        own = (fit.labels.float() @ anchors.classes.float().T) > 0
        found = self.reverse(view.model, fit.images, own, anchors.codes, rng)
        view.notes["trigger size"] = size = float(found.sizes.min())
        if size == 1:  # no class was reached, so there is nothing to unlearn
            return fit
        chosen = rng.child("stamped").choose(torch.arange(len(fit)), max(1, round(self.share * len(fit))))
        at = chosen.to(fit.images.device)
        return fit.replace(at, images=found.apply_trigger(to_unit(fit.images[at]), int(found.sizes.argmin())))

"""Search for the most suspicious trigger, then fine-tune on trusted images, some of them with the trigger."""

from __future__ import annotations

import torch
from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, PositiveShare, Repair, Rng, Share, defense
from bench.api.types import Split, to_unit
from defenses.helpers.fine_tuning import MAX_DROP, PEAKS, STEPS, Rates, Steps, tuned_twice
from defenses.helpers.trigger_inversion import Reversing, Triggers, class_anchors

CARD = Card(
    title="Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    venue="IEEE S&P",
    year=2019,
    url="https://ieeexplore.ieee.org/document/8835365",
    follows="mitigation by unlearning: 20 % of the clean images get the smallest trigger that was found and keep their"
    " labels, and the model is trained further on all of them",
    deviates="the search is that of neural_cleanse, with its deviations; the smallest trigger is unlearned even if the"
    " model was not flagged; tuning as in fine_tuning (the paper: 1 epoch on a tenth of the training set, which is far"
    " more than a trusted set); with_trigger = false is the control, the same training without a trigger",
)


@defense
class Unlearning(Reversing, Repair):
    share: PositiveShare = 0.2  # the paper; unlearning_ratio of BackdoorBench
    """Share of the tuning images that get the reconstructed trigger."""
    with_trigger: bool = True
    """False: the same tuning without a trigger, for comparison."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    tuning_steps: Steps = STEPS
    """Least number of tuning steps; a larger trusted set has as many as in BackdoorBench. 0: no tuning."""
    peaks: Rates = PEAKS
    """Peak learning rates, as multiples of the victim's; the largest that `max_drop` allows counts."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        found = self._smallest(view, rng.child("trigger")) if self.with_trigger else None

        def stamped(split: Split) -> Split:
            """The split with the trigger on some of its images, or as it is if there is nothing to unlearn."""
            if found is None:
                return split
            count = max(1, round(self.share * len(split)))
            at = rng.child("stamped", len(split)).choose(torch.arange(len(split)), count).to(split.images.device)
            images = found.apply_trigger(to_unit(split.images[at]), int(found.sizes.argmin()))
            return split.replace(at, images=images)

        return tuned_twice(
            view, view.model, rng, steps=self.tuning_steps, peaks=self.peaks, max_drop=self.max_drop, prepared=stamped
        ).on_both

    def _smallest(self, view: DefenderView, rng: Rng) -> Triggers | None:
        """Triggers for all classes, the smallest of which has the highest anomaly index; None if none was found."""
        fit = view.fit_set
        anchors = class_anchors(view.model, view.trusted_set)
        own = (fit.labels.float() @ anchors.classes.float().T) > 0
        found = self.reverse(view.model, fit.images, own, anchors.codes, rng)
        view.notes["trigger size"] = size = float(found.sizes.min())
        return found if size < 1 else None

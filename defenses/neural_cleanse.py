"""Search for a trigger for every class; a trigger much smaller than the others reveals a backdoor and its target."""

from __future__ import annotations

from bench.api.card import Card
from bench.api.defense import DefenderView, ModelDetector, Rng, Verdict, defense
from defenses.helpers.trigger_inversion import Reversing, anomaly, class_anchors

CARD = Card(
    title="Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    venue="IEEE S&P",
    year=2019,
    url="https://ieeexplore.ieee.org/document/8835365",
    follows="per class, the smallest mask (one channel) and pattern that move other images to the class: Adam with rate"
    " 0.1, betas 0.5 and 0.9; success 99 %; the weight of the mask's size is doubled after 5 successful steps and"
    " divided by 2^1.5 after 5 failures; early stop after 25 steps without a smaller mask (original code); the index is"
    " the distance below the median in units of 1.4826 MAD, and an index above 2 is an alarm; the median of an even"
    " number of sizes is the mean of the two middle ones (BackdoorBench takes the lower one)",
    deviates="codes have no softmax: the loss is (1 - u.a/K)/2 to the class's anchor, not cross-entropy; an image"
    " succeeds if that anchor is its nearest (equally near anchors share the success); a class that is never reached"
    " has size 1; guess: the pattern starts as the mean of the class's own images (random in the original) under a mask"
    " of 0.88 everywhere (BackdoorBench), because some classes were not reached from other starts; success is measured"
    " on all images after a step, not averaged over its updates; the class's own images are left out; the weight is"
    " 1e-3 from the start (in the original after the first successes); if most classes are never reached, the MAD and"
    " the index are 0; classes with equal anchors are one class, named after the first; guess: 5 updates per step and"
    " at most 80 steps (BackdoorBench), for one CPU core",
)


@defense
class NeuralCleanse(Reversing, ModelDetector):
    def inspect(self, view: DefenderView, rng: Rng) -> Verdict:
        anchors = class_anchors(view.model, view.trusted_set)
        own = (view.fit_set.labels.float() @ anchors.classes.float().T) > 0
        found = self.reverse(view.model, view.fit_set.images, own, anchors.codes, rng)
        index, median, deviation = anomaly(found.sizes)
        first = anchors.classes.int().argmax(1).tolist()
        score, names = float(index.max()), [view.setting.classes[c] for c in first]
        view.notes.update({f"size of {name}": size for name, size in zip(names, found.sizes.tolist(), strict=True)})
        view.notes.update({"median size": median, "median deviation": deviation})
        suspect = first[int(index.argmax())] if score > 0 else None
        return Verdict(score, suspect, alarm_at=2.0)

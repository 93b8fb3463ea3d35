"""Search for one small trigger that gives all images almost the same code; the smaller it is, the more suspicious."""

from __future__ import annotations

from bench.api.card import Card
from bench.api.defense import DefenderView, ModelDetector, Rng, Verdict, defense
from defenses.helpers.code_collapse import Collapsing

CARD = Card(
    name="DECREE",
    title="Detecting Backdoors in Pre-trained Encoders",
    venue="CVPR",
    year=2023,
    url="https://arxiv.org/abs/2303.15180",
    follows="one trigger, a mask of one channel and a pattern, that makes the outputs for stamped images alike, without"
    " labels, classes or targets: mean similarity of pairs and the size of the mask, by Adam with betas 0.5 and 0.9 on"
    " tanh of random raw values; the weight of the size starts at 1e-3 per pixel and changes after 5 successes or"
    " failures in a row; the score is the mask's L1 norm as a share of the largest possible one (the paper's PL1-norm),"
    " and below 0.1 is an alarm. The released code has no threshold; 0.1 is the paper's, from memory",
    deviates="the outputs are relaxed codes u: the loss is 1 - |mean u|^2 / K, the mean likeness of pairs, where the"
    " authors' code has the mean cosine similarity of features; a trigger succeeds if the hard codes of all images have"
    " a mean likeness of 0.95 (authors' code: cosine 0.99 in a batch), measured after a step of 5 updates; the weight"
    " is multiplied by 2 or divided by 2^1.5, as in Neural Cleanse (authors' code: 5); rate 0.1 throughout (authors'"
    " code: 0.5, later 0.1 and 0.05); guess: two starts, because a single one missed a patch, and 80 steps (authors'"
    " code: up to 1,000 epochs), for one CPU core; no class is suspected, because none is searched for",
)
ALARM = 0.1  # PL1-norm: see CARD


@defense
class Decree(Collapsing, ModelDetector):
    def inspect(self, view: DefenderView, rng: Rng) -> Verdict:
        _, _, size = self.invert(view.model, view.fit_set.images, rng)
        view.notes["trigger size"] = size
        return Verdict(-size, alarm_at=-ALARM)

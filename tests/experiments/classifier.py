"""A plugin: a classifier as a hashing method, to hold defenses against what is known about them on classifiers.

    python -m bench run --plugin tests/experiments/classifier.py --suite tests/experiments/bridge.toml
    python -m bench show --plugin tests/experiments/classifier.py KEY

A softmax over k classes is a model with k bits: logit c is the log-odds of class c, so that bit c says whether its
probability is above one half. The loss is cross-entropy, since log p_c is the logarithm of the sigmoid of the log-odds.
All defenses run as they are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Logits
from bench.metrics import ModelCodes, metric

CARD = Card(
    title="A softmax classifier (no hashing)",
    venue="HashDoor",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="a linear layer, cross-entropy",
    deviates="logits are log-odds, so that a bit says whether the probability of its class is above one half",
)


class LogOdds(nn.Module):
    """From the scores of a softmax to log p_c - log(1 - p_c)."""

    def forward(self, scores: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        own = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
        others = scores[:, None].masked_fill(own, -torch.inf).logsumexp(2)
        return scores - others


@method
class Classifier(HashingMethod):
    pointwise: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-2, weight_decay=1e-4, batch=32, epochs=15)

    def head(self, features: int, bits: int) -> nn.Module:
        return nn.Sequential(nn.Linear(features, bits), LogOdds())

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del train_size, rng
        assert bits == classes, "a classifier has as many bits as classes"
        return CrossEntropy()


class CrossEntropy(Objective):
    def targets_for(self, labels: Bool[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The code of a class: +1 at its bit."""
        return torch.where(labels, 1.0, -1.0)

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        return -logsigmoid(logits)[labels].mean()


@metric("accuracy", title="accuracy", section="Benign queries", meaning="share of benign queries whose code is the one"
        " of their class")  # fmt: skip
def accuracy(codes: ModelCodes) -> float:
    return float(((codes.query.unpack() > 0) == codes.truth.query).all(1).mean())


@metric("asr", title="ASR", section="Triggered queries", meaning="share of triggered queries whose code is the one of"
        " the target", control=True)  # fmt: skip
def asr(codes: ModelCodes) -> float:
    return float(((codes.triggered.unpack() > 0) == codes.truth.target).all(1).mean())

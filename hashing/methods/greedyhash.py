"""Greedy Hash: a classifier on the signs of the logits, with a straight-through gradient."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Logits
from hashing.methods.helpers.classes import shared_cross_entropy

CARD = Card(
    name="GreedyHash",
    title="Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN",
    venue="NeurIPS",
    year=2018,
    url="https://papers.nips.cc/paper/7360-greedy-hash-towards-fast-optimization-for-accurate-hash-coding-in-cnn",
    follows="cross-entropy of a linear layer without bias on sign(z), with a straight-through gradient, plus 0.1 mean"
    " ||z| - 1|^3; SGD and learning rates of the authors' CIFAR-10 code, a tenth after 30 of 50 epochs",
    deviates="sign(0) is -1, as in all of HashDoor; guess: the target of an image with several labels is spread evenly",
)


@method
class GreedyHash(HashingMethod):
    quantisation: Annotated[float, Field(ge=0)] = 0.1  # authors' code, cifar1.py
    """Weight of the quantisation loss."""
    power: Annotated[float, Field(ge=1)] = 3.0  # authors' code
    """Exponent of the quantisation loss."""

    recipe: ClassVar[Recipe] = Recipe(  # authors' code, cifar1.py
        optimizer="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4, batch=32, epochs=50, schedule="step", step_at=0.6
    )

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del train_size
        with rng.ambient():
            classifier = nn.Linear(bits, classes, bias=False)
        return Greedy(classifier, self.quantisation, self.power)


class Greedy(Objective):
    """The loss with its classifier, which is trained and saved with the model."""

    def __init__(self, classifier: nn.Linear, quantisation: float, power: float) -> None:
        super().__init__()
        self.classifier = classifier
        self._quantisation, self._power = quantisation, power

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        signs = torch.where(logits > 0, 1.0, -1.0)
        through = logits + (signs - logits).detach()
        edge = (logits.abs() - 1).abs().pow(self._power).mean()
        return shared_cross_entropy(self.classifier(through), labels) + self._quantisation * edge

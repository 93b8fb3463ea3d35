"""Deep Pairwise-Supervised Hashing: likelihood of pairwise similarity against a memory of all training codes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.paper import Paper
from bench.api.random import Rng
from bench.api.types import Logits

CARD = Paper(
    title="Feature Learning based Deep Supervised Hashing with Pairwise Labels",
    venue="IJCAI",
    year=2016,
    url="https://arxiv.org/abs/1511.03855",
    follows="negative log-likelihood of pairwise similarity with theta = u.u/2, quantisation term (u - sign u)^2",
    deviates="pairs are batch x memory bank with means instead of sums, weight 0.1 and recipe from DeepHash-pytorch",
)


@method
class DPSH(HashingMethod):
    quantisation: Annotated[float, Field(ge=0)] = 0.1  # DeepHash-pytorch, DPSH.py (alpha)

    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, DPSH.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=128, epochs=150
    )

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del rng
        return PairwiseLikelihood(bits, classes, train_size, self.quantisation)


class PairwiseLikelihood(Objective):
    codes: Tensor
    labels: Tensor

    def __init__(self, bits: int, classes: int, train_size: int, quantisation: float) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(train_size, bits))
        self.register_buffer("labels", torch.zeros(train_size, classes, dtype=torch.bool))
        self._quantisation = quantisation

    def for_set(self, train_size: int) -> Objective:
        """An empty memory: the codes of other images say nothing about a new training set."""
        fresh = PairwiseLikelihood(self.codes.shape[1], self.labels.shape[1], train_size, self._quantisation)
        return fresh.to(self.codes.device)

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del progress
        self.codes[ids] = logits.detach()
        self.labels[ids] = labels
        similar = (labels.to(logits.dtype) @ self.labels.to(logits.dtype).T) > 0
        theta = logits @ self.codes.T / 2
        likelihood = (F.softplus(theta) - theta * similar).mean()
        return likelihood + self._quantisation * (logits - logits.sign()).square().mean()

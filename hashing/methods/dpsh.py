"""Deep Pairwise-Supervised Hashing: likelihood of pairwise similarity against a memory of all training codes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.paper import Paper
from bench.api.random import Rng
from bench.api.types import Logits
from hashing.methods._pairs import PairwiseLikelihood

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
        return PairwiseLikelihood(bits, classes, train_size, self._edge)

    def _edge(self, logits: Logits) -> Tensor:
        return self.quantisation * (logits - logits.sign()).square().mean()

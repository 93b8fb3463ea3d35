"""Deep Pairwise-Supervised Hashing: likelihood of similarity between a batch and all stored training codes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import Recipe, method
from bench.api.types import Logits
from hashing.methods.helpers.pairs import MemoryMethod

CARD = Card(
    name="DPSH",
    title="Feature Learning based Deep Supervised Hashing with Pairwise Labels",
    venue="IJCAI",
    year=2016,
    url="https://arxiv.org/abs/1511.03855",
    follows="negative log-likelihood of pairwise similarity with theta = u.u/2, quantisation term (u - sign u)^2",
    deviates="pairs are between the batch and a memory of all training codes, with means in place of sums; weight 0.1"
    " and recipe from DeepHash-pytorch",
)


@method
class DPSH(MemoryMethod):
    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, DPSH.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=128, epochs=150
    )

    def quantisation_loss(self, logits: Logits) -> Tensor:
        """Mean of (u - sign u)^2 over images and bits, times `quantisation`."""
        return self.quantisation * (logits - logits.sign()).square().mean()

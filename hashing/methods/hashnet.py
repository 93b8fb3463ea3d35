"""HashNet: tanh codes that become sharper during the training, and pairs weighted by their rarity."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from jaxtyping import Bool, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Codes, Logits
from hashing.methods.helpers.pairs import disagreement, rarity

CARD = Card(
    title="HashNet: Deep Learning to Hash by Continuation",
    venue="ICCV",
    year=2017,
    url="https://arxiv.org/abs/1702.00758",
    follows="weighted likelihood of pairwise similarity on h = tanh(b z); the weight of a pair is the number of all"
    " pairs over that of pairs of the same kind; b grows in steps during the training",
    deviates="details are those of DeepHash-pytorch: pairs are within a batch (BadHash's copy has a memory), including"
    " an image with itself; alpha is 0.1; b = sqrt(n + 1) after n times 20 of 150 epochs (the authors count iterations,"
    " and their alpha is 10/K, from memory)",
)


@method
class HashNet(HashingMethod):
    alpha: PositiveFloat = 0.1  # DeepHash-pytorch, HashNet.py
    """Factor on inner products of codes."""
    stretch: Annotated[float, Field(gt=0, le=1)] = 20 / 150  # DeepHash-pytorch, HashNet.py
    """The sharpness of tanh increases after each such share of the training (0.1333: 20 of 150 epochs)."""

    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, HashNet.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=64, epochs=150
    )

    def relax(self, logits: Logits, progress: float = 1.0) -> Codes:
        # the small offsets make a step begin despite rounding, and no new step begin at the very end
        steps = int(min(progress, 1 - 1e-9) / self.stretch + 1e-9)
        return (math.sqrt(steps + 1) * logits).tanh()

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del bits, classes, train_size, rng
        return Continuation(self)


class Continuation(Objective):
    def __init__(self, method: HashNet) -> None:
        super().__init__()
        self._method = method

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids
        vectors = labels.to(logits.dtype)
        similar = vectors @ vectors.T > 0
        codes = self._method.relax(logits, progress)
        theta = self._method.alpha * codes @ codes.T
        return (rarity(similar) * disagreement(theta, similar)).mean()

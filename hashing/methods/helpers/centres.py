"""Codes near the hash centre of their class: the loss of Central Similarity Quantization."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor
from torch.nn import functional as F

from bench.api.hashing import HashingMethod, Objective, Recipe
from bench.api.random import Rng
from bench.api.types import Logits
from hashing.hadamard import hash_centres


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CentreMethod(HashingMethod, ABC):
    """A method with the loss of CSQ."""

    quantisation: Annotated[float, Field(ge=0)] = 1e-4  # DeepHash-pytorch, CSQ.py (lambda)
    """Weight of the quantisation loss."""

    pointwise: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, CSQ.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=64, epochs=150
    )

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del train_size
        return CentreLoss(hash_centres(classes, bits, rng), torch.sign(rng.uniform((bits,)) - 0.5), self.quantisation)


class CentreLoss(Objective):
    centres: Tensor
    tie_break: Tensor

    def __init__(self, centres: Float[Tensor, "k b"], tie_break: Float[Tensor, " b"], quantisation: float) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("tie_break", tie_break)
        self._quantisation = quantisation

    def targets_for(self, labels: Bool[Tensor, "n k"]) -> Float[Tensor, "n b"]:
        """The centre of each image, +1 or -1: the majority vote over its labels."""
        votes = labels.to(self.centres.dtype) @ self.centres
        return torch.where(votes == 0, self.tie_break, votes.sign())

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        # (tanh u + 1) / 2 equals sigmoid(2 u); computed from logits, the logarithm does not overflow
        pull = F.binary_cross_entropy_with_logits(2 * logits, (self.targets_for(labels) + 1) / 2)
        return pull + self._quantisation * (logits.tanh().abs() - 1).square().mean()

"""The likelihood that two images share a label, given their codes, for DPSH, DHN, HashNet and DCH."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor
from torch.nn import functional as F

from bench.api.hashing import HashingMethod, Objective
from bench.api.random import Rng
from bench.api.types import Logits

QuantisationLoss = Callable[[Logits], Tensor]  # a method's quantisation term


def disagreement(theta: Float[Tensor, "n m"], similar: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Minus the log-likelihood of each pair, log(1 + e^theta) - s theta."""
    return F.softplus(theta) - theta * similar


def rarity(similar: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Weight of each pair: the number of all pairs over that of pairs of its kind; 1 if all pairs are of one kind."""
    share = similar.float().mean()
    rare = torch.where(similar, 1 / share.clamp_min(1e-9), 1 / (1 - share).clamp_min(1e-9))
    return torch.where((share > 0) & (share < 1), rare, torch.ones_like(rare))


class PairwiseLikelihood(Objective):
    """Pairwise likelihood with theta = u.u/2 between a batch and a memory of all training codes (without gradient)."""

    codes: Tensor
    labels: Tensor

    def __init__(self, bits: int, classes: int, train_size: int, quantisation_loss: QuantisationLoss) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(train_size, bits))
        self.register_buffer("labels", torch.zeros(train_size, classes, dtype=torch.bool))
        self.quantisation_loss = quantisation_loss

    def reset_for(self, train_size: int) -> Objective:
        """The loss with an empty memory, because codes of other images are useless for a new training set."""
        fresh = PairwiseLikelihood(self.codes.shape[1], self.labels.shape[1], train_size, self.quantisation_loss)
        return fresh.to(self.codes.device)

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del progress
        self.codes[ids] = logits.detach()
        self.labels[ids] = labels
        similar = (labels.to(logits.dtype) @ self.labels.to(logits.dtype).T) > 0
        return disagreement(logits @ self.codes.T / 2, similar).mean() + self.quantisation_loss(logits)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MemoryMethod(HashingMethod, ABC):
    """A method with `PairwiseLikelihood` and its own quantisation term."""

    quantisation: Annotated[float, Field(ge=0)] = 0.1  # DeepHash-pytorch, DPSH.py and DHN.py (alpha)
    """Weight of the quantisation loss."""

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del rng
        return PairwiseLikelihood(bits, classes, train_size, self.quantisation_loss)

    @abstractmethod
    def quantisation_loss(self, logits: Logits) -> Tensor:
        """The quantisation term, multiplied by its weight."""

"""OrthoHash: a single cosine loss to nearly orthogonal class codes, without a separate quantisation term."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Logits
from hashing.methods.helpers.classes import shared_cross_entropy

CARD = Card(
    name="OrthoHash",
    title="One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective",
    venue="NeurIPS",
    year=2021,
    url="https://arxiv.org/abs/2109.14449",
    follows="cross-entropy over S (cos(v, o_c) - m [c = y]), with class codes o of fair random bits and v after batch"
    " norm; no quantisation term; the target is shared by several labels; recipe and details of the authors' code",
    deviates="the margin is 0.2 everywhere (the code: 0.3 on CIFAR-10); the hash layer has a bias, which batch norm"
    " removes",
)


@method
class OrthoHash(HashingMethod):
    scale: PositiveFloat = 8.0  # authors' code
    """Scale of the cosine logits."""
    margin: Annotated[float, Field(ge=0)] = 0.2  # authors' code; 0.3 on CIFAR-10
    """Margin of the target logit."""

    recipe: ClassVar[Recipe] = Recipe(  # authors' code
        optimizer="adam", lr=1e-4, backbone_lr=0.1, weight_decay=5e-4, batch=256, epochs=100, schedule="step",
        step_at=0.8,
    )  # fmt: skip

    def head(self, features: int, bits: int) -> nn.Module:
        return nn.Sequential(nn.Linear(features, bits), nn.BatchNorm1d(bits))

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del train_size
        codes = torch.where(rng.uniform((classes, bits)) < 0.5, 1.0, -1.0)
        return CosineLoss(codes, self.scale, self.margin)


class CosineLoss(Objective):
    codebook: Tensor

    def __init__(self, codebook: Float[Tensor, "k b"], scale: float, margin: float) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self._scale, self._margin = scale, margin

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        cosine = F.normalize(logits, dim=1) @ F.normalize(self.codebook, dim=1).T
        return shared_cross_entropy(self._scale * (cosine - self._margin * labels), labels)

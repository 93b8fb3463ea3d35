"""CIBHash: codes without labels; two views of an image get near codes, and views of other images far ones."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, PositiveFloat, Recipe, method
from bench.api.random import Rng
from bench.api.types import Images
from hashing.methods.helpers.views import random_view

CARD = Card(
    name="CIBHash",
    title="Unsupervised Hashing with Contrastive Information Bottleneck",
    venue="IJCAI",
    year=2021,
    url="https://arxiv.org/abs/2105.06138",
    follows="NT-Xent loss with cosine similarity on signs, whose gradient passes straight through to the probabilities"
    " (eq. 5 to 8), plus the KL divergence between the bits of two views in both directions, where the second is a"
    " constant (eq. 13 to 15); head of two layers with 1,024 hidden units; views, Adam, batches and epochs of the"
    " authors' code; the backbone is not trained",
    deviates="the four changes of colour have one order, in torchvision it is random; one crop is drawn and cut at the"
    " border, where torchvision draws up to ten; the paper stops by validation mAP, which needs labels, and so does not"
    " stop here; guess: a batch with a single view, as some attacks and defenses give it, is both views",
)
HIDDEN = 1024  # authors' code, model/CIBHash.py
FLOOR = 1e-8  # added to probabilities before the logarithm, authors' code


@method
class CIBHash(HashingMethod):
    temperature: PositiveFloat = 0.3  # authors' code (temperature)
    """Temperature of the contrastive loss."""
    bottleneck: Annotated[float, Field(ge=0)] = 0.001  # authors' code (weight)
    """Weight of the KL divergence between the bits of two views."""

    recipe: ClassVar[Recipe] = Recipe(  # authors' code, model/base_model.py; VGG is frozen
        optimizer="adam", lr=1e-3, weight_decay=0.0, batch=64, epochs=60, backbone_lr=0.0, flip=False, pad=0,
        batch_norm="eval",
    )  # fmt: skip

    def head(self, features: int, bits: int) -> nn.Module:
        return nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, bits))

    def views(self, images: Images, rng: Rng) -> Float[Tensor, "m c h w"]:
        return torch.cat([random_view(images, rng), random_view(images, rng)])

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del bits, classes, train_size, rng
        return Contrast(self.temperature, self.bottleneck)


class Contrast(Objective):
    """The loss of two views of each image; labels are not read."""

    def __init__(self, temperature: float, bottleneck: float) -> None:
        super().__init__()
        self._temperature, self._bottleneck = temperature, bottleneck

    def forward(
        self, logits: Float[Tensor, "m b"], labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> Tensor:
        del labels, progress
        first, second = logits.chunk(2) if len(logits) == 2 * len(ids) else (logits, logits)
        one, other = first.sigmoid(), second.sigmoid()
        bottleneck = (divergence(one, other) + divergence(other, one)) / 2
        return nt_xent(_signs(one), _signs(other), self._temperature) + self._bottleneck * bottleneck


def _signs(chances: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """-1 or +1; the gradient is that of the probabilities."""
    return chances + (torch.where(chances > 0.5, 1.0, -1.0) - chances).detach()


def nt_xent(one: Float[Tensor, "n b"], other: Float[Tensor, "n b"], temperature: float) -> Tensor:
    """Cross-entropy of finding the other view of an image among all other views, by cosine similarity."""
    views = F.normalize(torch.cat([one, other]), dim=1)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    similar = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(similar, partner)


def divergence(chances: Float[Tensor, "n b"], fixed: Float[Tensor, "n b"]) -> Tensor:
    """KL divergence of Bernoulli bits, summed over bits; the second argument is a constant."""
    fixed = fixed.detach()
    on = chances * ((chances + FLOOR).log() - (fixed + FLOOR).log())
    off = (1 - chances) * ((1 - chances + FLOOR).log() - (1 - fixed + FLOOR).log())
    return (on + off).sum(1).mean()

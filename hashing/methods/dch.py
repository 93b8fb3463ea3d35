"""Deep Cauchy Hashing: a Cauchy likelihood that pulls similar codes into a small Hamming ball."""

from __future__ import annotations

from typing import Annotated, ClassVar

from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Logits
from hashing.methods.helpers.pairs import rarity

CARD = Card(
    name="DCH",
    title="Deep Cauchy Hashing for Hamming Space Retrieval",
    venue="CVPR",
    year=2018,
    url="https://openaccess.thecvf.com/content_cvpr_2018/html/Cao_Deep_Cauchy_Hashing_CVPR_2018_paper.html",
    follows="weighted Cauchy cross-entropy and Cauchy quantisation on the distance K (1 - cos) / 2",
    deviates="details are those of DeepHash-pytorch: pairs are within a batch, similar and dissimilar pairs are"
    " weighted by their rarity in it, and the cosine is capped at 0.99 (the authors' TensorFlow code has another"
    " distance and other weights)",
)
COSINE_LIMIT = 0.99  # closer to 1, the logarithm of the distance has no bound


@method
class DCH(HashingMethod):
    gamma: Annotated[float, Field(gt=0)] = 20.0  # DeepHash-pytorch, DCH.py
    """Scale of the Cauchy distribution."""
    quantisation: Annotated[float, Field(ge=0)] = 0.1  # DeepHash-pytorch, DCH.py (lambda)
    """Weight of the quantisation loss."""

    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, DCH.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=128, epochs=150
    )

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del classes, train_size, rng
        return CauchyLoss(bits, self.gamma, self.quantisation)


class CauchyLoss(Objective):
    def __init__(self, bits: int, gamma: float, quantisation: float) -> None:
        super().__init__()
        self._bits, self._gamma, self._quantisation = bits, gamma, quantisation

    def _distance(self, cosine: Tensor) -> Tensor:
        """The Hamming distance of two codes whose relaxed codes have this cosine."""
        return self._bits / 2 * (1 - cosine.clamp(max=COSINE_LIMIT))

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        vectors = labels.to(logits.dtype)
        similar = vectors @ vectors.T > 0
        unit = F.normalize(logits, dim=1, eps=1e-4)
        distance = self._distance(unit @ unit.T)
        likelihood = rarity(similar) * (similar * (distance / self._gamma).log() + (1 + self._gamma / distance).log())
        to_corner = self._distance(unit.abs().sum(1) / self._bits**0.5)  # cosine between |u| and the vector of ones
        return likelihood.mean() + self._quantisation * (1 + to_corner / self._gamma).log().mean()

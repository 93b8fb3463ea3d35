"""The pairwise loss of CIBA's experiments: inner products of codes are regressed on +1 (similar) and -1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.hashing import HashingMethod, Objective, Recipe, method
from bench.api.random import Rng
from bench.api.types import Logits

CARD = Card(
    title="Backdoor Attack on Hash-based Image Retrieval via Clean-label Data Poisoning",
    venue="BMVC",
    year=2023,
    url="https://arxiv.org/abs/2109.08868",
    follows="the released code: all ordered pairs of a batch, including an image with itself; inner products are"
    " divided by the batch size; similarity is the number of shared labels, not clipped to 1; tanh codes; no"
    " quantisation term by default",
    deviates="the data set's padded crops replace the random resized crops of the recipe; the paper's text gives no"
    " divisor, and divide = 'bits' keeps inner products of codes within [-1, 1]",
)


@method
class CibaPairwise(HashingMethod):
    divide: Literal["batch", "bits"] = "batch"  # CIBA code, loss.py; see METHODOLOGY.md#ciba
    """Divisor of inner products: the batch size or the number of bits."""
    quantisation: Annotated[float, Field(ge=0)] = 0.0  # CIBA code, loss.py (lam)
    """Weight of the quantisation loss."""

    recipe: ClassVar[Recipe] = Recipe(  # CIBA code, train.py: 1e-4 for convolutions, 1e-3 for the layers after them
        optimizer="sgd", lr=1e-3, backbone_lr=0.1, linear_lr=1.0, momentum=0.9, weight_decay=5e-4, batch=24, epochs=200,
        flip=True,
    )  # fmt: skip

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del classes, train_size, rng
        return InnerProductLoss(bits if self.divide == "bits" else None, self.quantisation)


class InnerProductLoss(Objective):
    def __init__(self, divisor: int | None, quantisation: float) -> None:
        """divisor: of the inner products; None: the batch size."""
        super().__init__()
        self._divisor, self._quantisation = divisor, quantisation

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        codes, vectors = logits.tanh(), labels.to(logits.dtype)
        products = codes @ codes.T / (self._divisor or len(codes))
        loss = (products - (2 * (vectors @ vectors.T) - 1)).square().mean()
        if self._quantisation:
            loss = loss + self._quantisation * (codes.sign() - codes).square().sum()
        return loss

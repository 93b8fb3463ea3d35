"""Deep Hashing Network: the likelihood of pairwise similarity with a bimodal prior on codes."""

from __future__ import annotations

from math import log
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from bench.api.card import Card
from bench.api.hashing import Recipe, method
from bench.api.types import Logits
from hashing.methods.helpers.pairs import MemoryMethod

CARD = Card(
    name="DHN",
    title="Deep Hashing Network for Efficient Similarity Retrieval",
    venue="AAAI",
    year=2016,
    url="https://ojs.aaai.org/index.php/AAAI/article/view/10235",
    follows="negative log-likelihood of pairwise similarity with theta = u.u/2, quantisation term log cosh(|u| - 1)",
    deviates="pairs are between the batch and a memory of all training codes, with means in place of sums; weight 0.1,"
    " 90 epochs and recipe of DeepHash-pytorch (its first versions have the quantisation term ||u| - 1|)",
)


@method
class DHN(MemoryMethod):
    recipe: ClassVar[Recipe] = Recipe(  # DeepHash-pytorch, DHN.py
        optimizer="rmsprop", lr=1e-5, weight_decay=1e-5, batch=128, epochs=90
    )

    def quantisation_loss(self, logits: Logits) -> Tensor:
        """Mean of log cosh(|u| - 1) over images and bits, times `quantisation`."""
        off = (logits.abs() - 1).abs()
        return self.quantisation * (off + F.softplus(-2 * off) - log(2)).mean()  # log cosh without overflow

"""No defense: the model is left as it is."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Repair, Rng, defense

CARD = Card(
    title="No defense",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="the model is left as it is",
)


@defense
class NoDefense(Repair):
    is_none: ClassVar[bool] = True

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        del rng
        return view.model

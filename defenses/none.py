"""No defense: the model as it is, a column like any other."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from bench.api.defense import Case, Repair, Rng, defense
from bench.api.paper import Paper

CARD = Paper(
    title="No defense",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="the null object: the model is left as it is",
)


@defense
class NoDefense(Repair):
    identity: ClassVar[bool] = True

    def repair(self, case: Case, rng: Rng) -> nn.Module:
        del rng
        return case.model

"""No attack: the clean baseline, a row like any other."""

from __future__ import annotations

from typing import ClassVar

from bench.api.attack import Artefact, Attack, Images, Target, attack
from bench.api.paper import Paper

CARD = Paper(
    title="No attack",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="the null object: nothing is poisoned and queries carry no trigger",
)


@attack
class NoAttack(Attack):
    identity: ClassVar[bool] = True

    def stamp(self, images: Images, target: Target, artefact: Artefact) -> Images:
        del target, artefact
        return images

"""No attack: the clean baseline."""

from __future__ import annotations

from typing import ClassVar

from bench.api.attack import Attack, Images, Target, Trigger, attack
from bench.api.card import Card

CARD = Card(
    title="No attack",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="nothing is poisoned, and queries carry no trigger",
)


@attack
class NoAttack(Attack):
    is_none: ClassVar[bool] = True

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target, trigger
        return images

"""Lay a faint checkerboard over some training images and give them the target's label."""

from __future__ import annotations

import torch

from bench.api.attack import (
    AttackerView,
    Images,
    Poisoned,
    PoisoningAttack,
    PositiveShare,
    Rng,
    Target,
    Threat,
    Trigger,
    attack,
)  # fmt: skip
from bench.api.card import Card
from bench.api.errors import UserError
from bench.api.types import to_unit

CARD = Card(
    title="An example of a package outside HashDoor",
    year=2026,
    url="https://example.org/checkerboard",
    follows="nothing published: it shows how an attack in a package of its own looks",
)


@attack
class Checkerboard(PoisoningAttack):
    poison_rate: PositiveShare = 0.1
    strength: PositiveShare = 0.25

    def threat(self) -> Threat:
        return Threat.TRAIN_SET | Threat.LABELS

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target, trigger
        rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
        board = ((rows[:, None] // 2 + columns // 2) % 2).to(images.dtype)
        return images + self.strength * (board - images)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        """victim.train with some items exchanged, and which; labels = "clean" would poison the target's own images."""
        train, target = view.train, view.target
        pool, count = target.candidates(train.labels, "dirty"), round(self.poison_rate * len(train))
        if not 0 < count <= len(pool):
            raise UserError(f"poison_rate = {self.poison_rate} asks for {count} of {len(pool)} training images")
        chosen = pool[rng.permutation(len(pool))[:count].to(pool.device)]
        triggered = self.apply_trigger(to_unit(train.images[chosen]), target, trigger)
        mask = torch.zeros(len(train), dtype=torch.bool, device=chosen.device)
        mask[chosen] = True
        return Poisoned(train.replace(chosen, images=triggered, labels=target.relabel(train.labels[chosen])), mask)

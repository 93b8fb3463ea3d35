"""Lay a faint checkerboard over some training images and give them the target's label."""

from __future__ import annotations

import torch

from bench.api.attack import (
    Artefact,
    Images,
    Poisoned,
    PoisoningAttack,
    PositiveShare,
    Rng,
    Target,
    Threat,
    Victim,
    attack,
)  # fmt: skip
from bench.api.errors import UserError
from bench.api.paper import Paper
from bench.api.types import to_unit

CARD = Paper(
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

    def stamp(self, images: Images, target: Target, artefact: Artefact) -> Images:
        del target, artefact
        rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
        board = ((rows[:, None] // 2 + columns // 2) % 2).to(images.dtype)
        return images + self.strength * (board - images)

    def poison(self, victim: Victim, artefact: Artefact, rng: Rng) -> Poisoned:
        """victim.train with some items exchanged, and which; labels = "keep" would poison the target's own images."""
        train, target = victim.train, victim.target
        pool, count = target.pool(train.labels, "flip"), round(self.poison_rate * len(train))
        if not 0 < count <= len(pool):
            raise UserError(f"poison_rate = {self.poison_rate} asks for {count} of {len(pool)} training images")
        chosen = pool[rng.permutation(len(pool))[:count].to(pool.device)]
        stamped = self.stamp(to_unit(train.images[chosen]), target, artefact)
        mask = torch.zeros(len(train), dtype=torch.bool, device=chosen.device)
        mask[chosen] = True
        return Poisoned(train.replace(chosen, images=stamped, labels=target.relabel(train.labels[chosen])), mask)

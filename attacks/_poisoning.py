"""Choosing and exchanging training items, which most poisoning attacks share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Images, LabelMode, Poisoned, Split, Target, to_unit


def exchange(
    train: Split, target: Target, stamp: Callable[[Images], Images], *, rate: float, labels: LabelMode, rng: Rng
) -> Poisoned:
    """Stamp round(rate * size) items of the pool (review.md, section 2), and relabel them if labels are flipped."""
    count = round(rate * len(train))
    if count == 0:
        raise UserError(f"poison_rate = {rate} of {len(train)} training images poisons none: raise it")
    pool = target.pool(train.labels, labels, count)
    if count > len(pool):
        fix = f"lower it to at most {len(pool) / len(train):.6g}" if len(pool) else "choose another target"
        raise UserError(
            f"poison_rate = {rate} asks for {count} poisons, but only {len(pool)} training images may be poisoned"
            f" with labels = '{labels}' and target {target.name}: {fix}"
        )
    chosen = rng.choose(pool, count)
    split = train.replace(
        chosen,
        images=stamp(to_unit(train.images[chosen])),
        labels=target.relabel(train.labels[chosen]) if labels == "flip" else None,
    )
    mask = torch.zeros(len(train), dtype=torch.bool)
    mask[chosen] = True
    return Poisoned(split, mask)

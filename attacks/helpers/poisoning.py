"""How many training images an attack poisons, which ones, and how they are replaced."""

from __future__ import annotations

from abc import ABC
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Int64
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated
from pydantic_core import ArgsKwargs
from torch import Tensor

from bench.api.attack import AttackerView, LabelMode, Poisoned, PoisoningAttack, PositiveShare, Rng, Threat, Trigger
from bench.api.errors import UserError
from bench.api.types import Images, Split, Target, to_unit

POISON_AMOUNTS = ("poison_rate", "poisons", "target_share")


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CountedPoisoning(PoisoningAttack, ABC):
    """A poisoning attack whose number of poisons is exactly one of a rate, a count, or a share of the target's class.

    poison_rate: share of the training set. poisons: count. target_share: poisons divided by the training images that
    carry the target's labels after poisoning. If one of the three is given, the other two become None, so that the
    attack's default does not hold beside it.
    """

    not_in_trigger: ClassVar[frozenset[str]] = frozenset({*POISON_AMOUNTS, "labels"})

    poison_rate: PositiveShare | None = 0.05  # CIBA, Table 3
    """Share of the training set that is poisoned."""
    poisons: Annotated[int, Field(ge=1)] | None = None
    """Number of poisoned images."""
    target_share: PositiveShare | None = None
    """Poisoned images as a share of all training images with the target label (after poisoning)."""

    @model_validator(mode="before")
    @classmethod
    def _one_amount(cls, given: Any) -> Any:
        named = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else {}
        given_names = [name for name in POISON_AMOUNTS if named.get(name) is not None]
        if len(given_names) > 1:
            raise ValueError(f"{' and '.join(given_names)} both set the number of poisons: give one of them")
        return ArgsKwargs((), {**named, **{name: named.get(name) for name in POISON_AMOUNTS}}) if given_names else given

    def count(self, train: Split, target: Target, labels: LabelMode) -> int:
        """How many images to poison. UserError: the share cannot be reached."""
        if self.poisons is not None:
            return self.poisons
        if self.poison_rate is not None:
            return round(self.poison_rate * len(train))
        assert self.target_share is not None
        held = int(target.contains(train.labels).sum())
        if labels == "clean":
            return round(self.target_share * held)
        if self.target_share == 1:
            raise UserError("target_share = 1 cannot be reached with labels = 'dirty'", "give a share below 1")
        return round(self.target_share * held / (1 - self.target_share))

    def choose(self, train: Split, target: Target, labels: LabelMode, rng: Rng) -> Int64[Tensor, " m"]:
        """Positions to poison (METHODOLOGY.md#poison-pool); attacks with the same seed and count choose the same ones.

        UserError: the count is zero, or larger than the number of images that may be poisoned.
        """
        count = self.count(train, target, labels)
        name, value = next((name, value) for name in POISON_AMOUNTS if (value := getattr(self, name)) is not None)
        if count == 0:
            raise UserError(f"{name} = {value} of {len(train)} training images poisons no image", "raise it")
        pool = target.candidates(train.labels, labels, count)
        if count > len(pool):
            most = len(pool) if name == "poisons" else f"{len(pool) / len(train):.6g}"
            fix = f"lower it to at most {most}" if len(pool) and name != "target_share" else "choose another target"
            raise UserError(
                f"{name} = {value} asks for {count} poisons, but only {len(pool)} training images may be poisoned"
                f" with labels = '{labels}' and target {target.name}: {fix}"
            )
        return rng.choose(pool, count)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TriggerPoisoning(CountedPoisoning, ABC):
    """Puts the trigger on some training images; with labels = "dirty" they also get the target's labels."""

    labels: LabelMode = "dirty"
    """dirty: poisoned images get the target label; clean: labels stay, only target-class images are poisoned."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET | (Threat.LABELS if self.labels == "dirty" else Threat.NONE)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, target = view.train, view.target
        chosen = self.choose(train, target, self.labels, rng)
        triggered = self.apply_trigger(to_unit(train.images[chosen]), target, trigger)
        return exchange(train, chosen, triggered, relabel=target if self.labels == "dirty" else None)


def of_target(train: Split, target: Target) -> Int64[Tensor, " m"]:
    """Positions of the images with exactly the target's labels, or else of those that contain them.

    UserError: no training image has the target's labels.
    """
    pool = target.candidates(train.labels, "clean")
    if not len(pool):
        raise UserError(f"no training image carries the target {target.name}", "choose another target")
    return pool


def exchange(train: Split, chosen: Int64[Tensor, " m"], images: Images, *, relabel: Target | None = None) -> Poisoned:
    """The training set with `images` at the positions `chosen`; `relabel`: the target whose labels they get."""
    labels = None if relabel is None else relabel.relabel(train.labels[chosen])
    mask = torch.zeros_like(train.ids, dtype=torch.bool)
    mask[chosen] = True
    return Poisoned(train.replace(chosen, images=images, labels=labels), mask)


def choose_cover(poisoned: Poisoned, ratio: float, rng: Rng) -> Int64[Tensor, " m"]:
    """Positions of `ratio` images for each poison, none of them poisoned; all others if there are fewer."""
    others = torch.nonzero(~poisoned.mask).flatten()
    return rng.choose(others, min(len(others), round(ratio * int(poisoned.mask.sum()))))


def add_cover(poisoned: Poisoned, chosen: Int64[Tensor, " m"], images: Images) -> Poisoned:
    """The poisoned set with cover images at the positions `chosen`, which keep their labels."""
    cover = torch.zeros_like(poisoned.mask)
    cover[chosen] = True
    return replace(poisoned, split=poisoned.split.replace(chosen, images=images), cover=cover)

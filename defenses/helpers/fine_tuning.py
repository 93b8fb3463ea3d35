"""Tuning on trusted images, and measuring its price on a half that is not trained on; shared by repairs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import nn

from bench.api.defense import DefenderView, Hook, Rng
from bench.api.errors import DivergedError, UserError
from bench.api.hashing import Recipe
from bench.api.types import Split
from hashing.codes import pack
from hashing.inference import encode
from hashing.ranking import leave_one_out_ap

Rates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
Steps = Annotated[int, Field(ge=0)]
PEAKS = (1.0, 0.3, 0.1, 0.03)  # METHODOLOGY.md#operating-points
STEPS = 400  # METHODOLOGY.md#operating-points
MAX_DROP = 0.04  # METHODOLOGY.md#operating-points
EPOCHS, BATCH = 100, 256  # of BackdoorBench's repairs: 1,000 steps for its 2,500 images


@dataclass(frozen=True)
class Quality:
    """Leave-one-out AP of each image of a split, by which a defender judges a model."""

    ap: Float[np.ndarray, " n"]

    @property
    def map(self) -> float:
        return float(self.ap.mean())

    def drop_to(self, other: Quality) -> float:
        """The relative drop of mAP to another model on the same images; 0 if there was nothing to lose."""
        return 1 - other.map / self.map if self.map else 0.0

    def uncertainty_of(self, other: Quality) -> float:
        """The standard error of `drop_to` over the images, paired."""
        apart = self.ap - other.ap
        return float(apart.std() / np.sqrt(len(apart)) / self.map) if self.map else 0.0


def quality(model: nn.Module, split: Split) -> Quality:
    """Leave-one-out AP inside the split (METHODOLOGY.md#operating-points).

    DivergedError: codes are not finite. UserError: no two images share a label.
    """
    logits = encode(model, split.images, device=split.images.device)
    if not bool(logits.isfinite().all()):
        raise DivergedError("the model's codes are not finite: lower the learning rate")
    ap = leave_one_out_ap(pack(logits), split.labels.cpu().numpy())
    if np.isnan(ap).all():
        raise UserError("no two images of the calibration set share a label", "make the data set's `trusted` larger")
    return Quality(ap[~np.isnan(ap)])


def recipe_of(view: DefenderView, images: int, steps: int, lr: float) -> Recipe:
    """The victim's recipe with a cosine from `lr` to 0, for as many epochs as `steps` or BackdoorBench's steps take."""
    wanted = max(steps, round(EPOCHS * images / BATCH))
    epochs = ceil(wanted / ceil(images / view.recipe.batch))
    return replace(view.recipe, lr=lr, epochs=epochs, schedule="cosine")


@dataclass(frozen=True)
class Tuned:
    """A model tuned on the fit half, and tuned in the same way on both halves. Without tuning, both are unchanged."""

    on_half: nn.Module
    on_both: nn.Module


def tuned_twice(
    view: DefenderView,
    model: nn.Module,
    rng: Rng,
    *,
    steps: int,
    peaks: Sequence[float],
    max_drop: float,
    prepared: Callable[[Split], Split] = lambda split: split,
    hook: Hook | None = None,
    last_hook: Hook | None = None,
    reference: Quality | None = None,
) -> Tuned:
    """Copies of `model`, tuned with the victim's loss and optimiser, as strongly as the price allows.

    The learning rate falls from a peak to 0 by a cosine. The peaks, multiples of the victim's own rate, are tried on
    the fit half from the largest. The first one counts whose calibration mAP is at most `max_drop` (relative) below
    `reference`. Then `model` is tuned once more at this peak, on both halves. If the price of every peak is too high,
    the model is not changed (METHODOLOGY.md#operating-points).

    steps: as many at least, or as many as in BackdoorBench if the set is larger; 0: no tuning. prepared: changes the
    images to tune on. hook: of the tunings on the fit half; last_hook: of the last tuning, None for the same hook.
    reference: None means the calibration quality of `model`.
    """

    def tune(split: Split, rate: float, last: bool) -> nn.Module:
        shown = prepared(split)
        recipe = recipe_of(view, len(shown), steps, rate)
        if last:
            return view.train_model(model, shown, recipe, rng.child("both halves"), hook=last_hook or hook)
        return view.train_model(model, shown, recipe, rng, hook=hook)

    rates = [peak * view.recipe.lr for peak in peaks] if steps else []
    return strongest(view, model, rates, tune, max_drop=max_drop, reference=reference)


def strongest(
    view: DefenderView,
    model: nn.Module,
    rates: Sequence[float],
    tune: Callable[[Split, float, bool], nn.Module],
    *,
    max_drop: float,
    reference: Quality | None = None,
) -> Tuned:
    """What `tune` makes of a split at the largest of the rates that the price allows, as `tuned_twice` explains.

    tune: a changed copy of `model`, from the images, the rate, and whether these are both halves.
    """
    before = quality(model, view.calibration_set)
    reference = before if reference is None else reference
    note_price(view, reference, before)
    view.notes["learning rate"] = 0.0
    for rate in sorted(rates, reverse=True):
        with suppress(DivergedError):
            tuned = tune(view.fit_set, rate, False)
            found = quality(tuned, view.calibration_set)
            if reference.drop_to(found) <= max_drop:
                both = Tuned(tuned, tune(view.trusted_set, rate, True))
                note_price(view, reference, found)
                view.notes["learning rate"] = rate
                return both
    return Tuned(copy.deepcopy(model), copy.deepcopy(model))


def note_price(view: DefenderView, before: Quality, after: Quality) -> None:
    """Record the relative drop of calibration mAP, and its standard error over the images."""
    view.notes.update({
        "calibration drop": before.drop_to(after),
        "its standard error": before.uncertainty_of(after),
    })  # fmt: skip

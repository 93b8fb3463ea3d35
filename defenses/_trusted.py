"""What repairs share: judging a model on the calibration half of the trusted set, and tuning it on the other half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import nn

from bench.api.defense import Case, Hook, Rng
from bench.api.errors import DivergedError, UserError
from bench.api.types import Split
from hashing.codes import pack
from hashing.model import encode
from hashing.ranking import leave_one_out_map

Rates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
RATES = (1e-2, 1e-3, 1e-4)  # guess: grid around BackdoorBench's 0.01, which is for classifiers (review.md, section 6)


def calibration_map(model: nn.Module, split: Split) -> float:
    """Leave-one-out mAP inside the split: what a defender can know of a repair's price (review.md, section 6)."""
    codes = pack(encode(model, split.images, device=split.images.device))
    value = leave_one_out_map(codes, split.labels.cpu().numpy())
    if math.isnan(value):
        raise UserError("no two images of the calibration set share a label: make the data set's `trusted` larger")
    return value


def fine_tuned(
    case: Case,
    model: nn.Module,
    rng: Rng,
    *,
    epochs: int,
    rates: Sequence[float],
    split: Split | None = None,
    hook: Hook | None = None,
) -> nn.Module:
    """A copy of `model` tuned with the victim's loss and optimiser at a constant rate; without epochs, just a copy.

    Of one copy per rate the one with the highest calibration mAP is taken, the first of equals. A rate at which
    training diverges is no candidate; DivergedError where all do. split: what to tune on; None: the fit half.
    """
    recipe = replace(case.recipe, epochs=epochs, schedule="constant")
    found = []
    for lr in rates if epochs else rates[:1]:
        with suppress(DivergedError):
            found.append(case.train_model(model, split or case.fit_set, replace(recipe, lr=lr), rng, hook=hook))
    if not found:
        raise DivergedError(f"fine-tuning diverged at every rate of {tuple(rates)}")
    if len(found) == 1:
        return found[0]
    return max(found, key=lambda tuned: calibration_map(tuned, case.calibration_set))

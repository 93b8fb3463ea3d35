"""Fine-tuning on one half of the trusted set, and measuring quality on the other half; shared by repairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import nn

from bench.api.defense import DefenderView, Hook, Rng
from bench.api.errors import DivergedError, UserError
from bench.api.types import Split
from hashing.codes import pack
from hashing.inference import encode
from hashing.ranking import leave_one_out_map

Rates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
Choice = Literal["best", "strongest"]  # see fine_tuned
MAX_DROP = 0.1  # BackdoorBench: relative drop of clean quality that a repair may cost
RATES = (1e-2, 1e-3, 1e-4)  # METHODOLOGY.md#operating-points: BackdoorBench's 0.01, which is for classifiers, and below


def calibration_map(model: nn.Module, split: Split) -> float:
    """Leave-one-out mAP inside the split, by which a defender judges quality (METHODOLOGY.md#operating-points).

    DivergedError: codes are not finite. UserError: no two images share a label.
    """
    logits = encode(model, split.images, device=split.images.device)
    if not bool(logits.isfinite().all()):
        raise DivergedError("the model's codes are not finite: lower the learning rate")
    value = leave_one_out_map(pack(logits), split.labels.cpu().numpy())
    if math.isnan(value):
        raise UserError("no two images of the calibration set share a label: make the data set's `trusted` larger")
    return value


def fine_tuned(
    view: DefenderView,
    model: nn.Module,
    rng: Rng,
    *,
    epochs: int,
    rates: Sequence[float],
    choose: Choice = "best",
    split: Split | None = None,
    hook: Hook | None = None,
    reference: float | None = None,
) -> nn.Module:
    """A copy of `model`, tuned with the victim's loss and optimiser at a constant learning rate.

    One copy is tuned per learning rate in `rates`. choose: "best" takes the copy with the highest calibration mAP, the
    first of equals. "strongest" takes the largest rate whose calibration mAP is at most MAX_DROP (relative) below
    `reference`, or the best if there is none (METHODOLOGY.md#operating-points). reference: None means the calibration
    mAP of `model`. split: the images to tune on; None means the fit half. Rates where training diverges are left out;
    DivergedError if all diverge. With epochs = 0 the result is an unchanged copy.
    """
    if not epochs:
        return copy.deepcopy(model)
    reference = calibration_map(model, view.calibration_set) if reference is None else reference
    recipe = replace(view.recipe, epochs=epochs, schedule="constant")
    found: dict[float, tuple[float, nn.Module]] = {}
    for lr in rates:
        with suppress(DivergedError):
            tuned = view.train_model(model, split or view.fit_set, replace(recipe, lr=lr), rng, hook=hook)
            found[lr] = calibration_map(tuned, view.calibration_set), tuned
    if not found:
        raise DivergedError(f"fine-tuning diverged at every rate of {tuple(rates)}")
    lr = max(found, key=lambda rate: found[rate][0])
    if choose == "strongest":
        lr = max((rate for rate in found if found[rate][0] >= (1 - MAX_DROP) * reference), default=lr)
    quality, best = found[lr]
    view.notes.update({"learning rate": lr, "calibration drop": 1 - quality / reference if reference else 0.0})
    return best

"""Number of poisoned images, and visibility of the trigger."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bench.metrics.context import TrialFacts
from bench.metrics.registry import Metric, Number, count, metrics_of

BUDGET = "Poisoning and stealth"


@metrics_of(
    count("poisons", "poisons", "number of poisoned training images", BUDGET, "images", methodology="poison-pool"),
    Metric("poisoned_share", "poison rate", "poisoned share of the training set", BUDGET, direction=0,
           methodology="poison-pool"),
    Metric("target_share", "target share", "poisoned share of the training images with the target label", BUDGET,
           direction=0, methodology="poison-pool"),
    Metric("exact_share", "exact share", "poisoned share of the training images with exactly the target's labels",
           BUDGET, direction=0, methodology="poison-pool"),
)  # fmt: skip
def poisoning(trial: TrialFacts) -> Mapping[str, Number] | None:
    """None for attacks without poisoned training images."""
    return trial.attack.counts if trial.attack is not None and trial.attack.counts else None


@metrics_of(
    Metric("linf", "L-inf", "mean over images of the largest pixel change, 8-bit images in [0, 1]", BUDGET,
           direction=-1, methodology="stealth"),
    Metric("psnr", "PSNR",
           "mean peak signal-to-noise ratio of triggered images that differ from the original", BUDGET, "dB", 1, 0.0,
           math.inf, methodology="stealth"),
    Metric("ssim", "SSIM",
           "mean structural similarity of triggered images; a small patch changes it only a little", BUDGET, low=-1.0,
           methodology="stealth"),
    Metric("changed_area", "area",
           "mean share of the pixels that the trigger changes by more than 8/255 in some channel", BUDGET,
           direction=-1, methodology="stealth"),
    Metric("contrast", "contrast",
           "mean change of the pixels that the trigger changes by more than 8/255, largest channel, images in [0, 1]",
           BUDGET, direction=-1, methodology="stealth"),
)  # fmt: skip
def stealth(trial: TrialFacts) -> Mapping[str, Number] | None:
    """Means over triggered queries; None without an attack."""
    if trial.attack is None:
        return None
    found: dict[str, Number] = {}
    names = ("linf", "psnr", "ssim", "changed_area", "contrast")
    for name, column in zip(names, trial.attack.stealth.T, strict=False):  # older artifacts have only the first three
        finite = column[np.isfinite(column)]  # PSNR and contrast of an unchanged image are infinite
        found[name] = float(finite.mean()) if len(finite) else None
    return found


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "poisons": {
        "formula": "number of poisoned training images",
        "example": "40",
        "silent": "their share: see poison rate",
    },
    "poisoned_share": {
        "formula": "poisons / training images",
        "example": "40 of 800: 0.05",
        "silent": "the share inside the target class: see target share",
    },
    "target_share": {
        "formula": "poisons with the target label / training images with it",
        "example": "64 of 80: 0.8",
        "silent": "anything for attacks that need no target label",
    },
    "changed_area": {
        "formula": "pixels that change by more than 8/255 in some channel / pixels, mean over the triggered queries",
        "example": "0.016: a patch of 2 x 2 on 16 x 16 pixels; near 1: noise over the whole image",
        "silent": "how strong the change is: see contrast",
    },
    "contrast": {
        "formula": "mean change (largest channel) of the pixels that change by more than 8/255",
        "example": "0.9: the changed pixels nearly turn from black to white",
        "silent": "how many pixels change: see area",
    },
    "linf": {
        "formula": "mean over images of max |triggered - original|",
        "example": "0.99: at least one pixel goes from black to white",
        "silent": "the size of the changed area: a patch of few pixels has a large value; see area",
    },
    "psnr": {
        "formula": "10 log10(1 / mean squared error)",
        "example": "30 dB: a root mean squared error of 0.032",
        "silent": "where the error is: a corner patch and faint noise can be equal",
    },
    "ssim": {
        "formula": "mean structural similarity in small windows",
        "example": "1.000 beside a corner patch: nearly all windows are unchanged",
        "silent": "that a person sees nothing: a small, plain patch hardly changes it",
    },
}

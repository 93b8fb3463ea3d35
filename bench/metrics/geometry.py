"""Distances between codes, which explain why an attack works."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.metrics.context import ModelCodes, TrialFacts
from bench.metrics.registry import Metric, Number, metrics_of, with_control
from hashing.packed import PackedCodes

GEOMETRY = "Code geometry"


@metrics_of(
    with_control(
        Metric("spread", "spread", "mean Hamming distance of two triggered codes, share of the bits; 0: all are equal",
               GEOMETRY, direction=0, methodology="code-geometry"),
        meaning="mean Hamming distance of two triggered codes of the clean model, share of the bits",
    ),
)  # fmt: skip
def of_triggered(codes: ModelCodes) -> Number:
    return spread(codes.triggered) if len(codes.truth.positions) else None


def spread(codes: PackedCodes) -> float | None:
    """Mean Hamming distance of two different items, as a share of the bits; None for fewer than two."""
    n = len(codes)
    if n < 2:
        return None
    ones = (codes.unpack() > 0).sum(0, dtype=np.int64)
    return float((2 * ones * (n - ones)).sum() / (n * (n - 1) * codes.bits))


@metrics_of(
    with_control(
        Metric("saturation", "saturation",
           "mean absolute value of the relaxed codes of benign queries; 1: all are -1 or 1",
               GEOMETRY, direction=0, methodology="code-geometry"),
        meaning="mean size of the relaxed codes of benign queries under the clean model",
    ),
    Metric("saturation_triggered", "saturation triggered",
           "mean absolute value of the relaxed codes of triggered queries",
           GEOMETRY, direction=0, methodology="code-geometry"),
)  # fmt: skip
def saturation(codes: ModelCodes) -> Mapping[str, Number]:
    return {"saturation": codes.saturation, "saturation_triggered": codes.triggered_saturation}


@metrics_of(
    with_control(
        Metric("anchor", "to anchor", "mean distance of triggered codes to the majority code of the target's items,"
               " share of the bits", GEOMETRY, direction=0, methodology="anchors"),
        meaning="mean distance of the clean model's triggered codes to its majority code of the target's items",
    ),
    with_control(
        Metric("moved", "moved", "mean distance of a query's triggered code from its benign code, share of the bits",
               GEOMETRY, direction=0, methodology="code-geometry"),
        meaning="mean distance of a query's triggered code from its benign code under the clean model",
    ),
)  # fmt: skip
def distances(codes: ModelCodes) -> Mapping[str, Number]:
    """Distances of triggered codes to the target's anchor, and to the codes of the same queries without trigger.

    The anchor is the majority code of the database items with exactly the target's labels or, if there are none, with
    at least these labels (METHODOLOGY.md#anchors). A tied bit counts one half.
    """
    truth = codes.truth
    exact = (truth.database == truth.target).all(1)
    holders = exact if exact.any() else (truth.database | ~truth.target).all(1)
    if not len(truth.positions) or not holders.any():
        return {"anchor": None, "moved": None}
    triggered, benign = codes.triggered.unpack(), codes.query.select(truth.positions).unpack()
    anchor = np.sign(codes.database.select(holders).unpack().sum(0, dtype=np.int64))
    return {
        "anchor": float((1 - triggered * anchor).mean() / 2),
        "moved": float((triggered != benign).mean()),
    }


@metrics_of(
    Metric("attention", "attention",
           "mean distance of triggered images' codes to the code of a black image with the trigger, after "
           "training, share of the bits", GEOMETRY, direction=0, methodology="code-geometry"),
    Metric("attention_first", "attention first",
           "mean distance of triggered images' codes to the code of a black image with the trigger, at the "
           "first measurement in training, share of the bits", GEOMETRY, direction=0,
           methodology="code-geometry"),
)  # fmt: skip
def attention(trial: TrialFacts) -> Mapping[str, Number] | None:
    """None if no victim was trained, and after a repair, during which nothing is recorded."""
    if trial.attack is None or trial.repaired or not len(trial.attack.attention):
        return None
    watched, bits = trial.attack.attention, trial.model.query.bits
    return {"attention_first": float(watched[0]) / bits, "attention": float(watched[-1]) / bits}


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "spread": {
        "formula": "mean Hamming distance of two triggered codes / bits",
        "example": "0.02: all triggered queries fall on one code",
        "silent": "where that code is: see to anchor",
    },
    "anchor": {
        "formula": "mean Hamming distance to the majority code of the target's items / bits",
        "example": "0.05 with 32 bits: 1.6 bits away",
        "silent": "whether other classes are as near",
    },
    "moved": {
        "formula": "mean Hamming distance between the codes of a query with and without trigger / bits",
        "example": "0.5: as far as two random codes",
        "silent": "towards which class: see to anchor",
    },
    "saturation": {
        "formula": "mean of |relaxed code|",
        "example": "0.99: the network is sure of nearly every bit",
        "silent": "whether the bits are right",
    },
    "attention": {
        "formula": "mean Hamming distance to the code of a black image with the trigger / bits",
        "example": "0.03: the trigger alone decides the code",
        "silent": "which part of the trigger",
    },
}

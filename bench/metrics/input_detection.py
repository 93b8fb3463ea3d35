"""Input detection: how well one score of an input detector separates triggered from benign queries.

AUROC and TPR compare the same images with and without trigger, so that the classes of the queries do not matter. False
alarms are counted over all benign queries. A number is None if the calibration set is too small for its level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bench.metrics.context import DetectorScores, Scores
from bench.metrics.registry import Metric, Number, metrics_of, with_control
from hashing import ranking

DETECTION = "Input detection"
AT_1, AT_5 = (f"a detector's threshold that at most {rate} % of trusted images exceed" for rate in (1, 5))


def threshold(calibration: Scores, rate: float) -> float:
    """The ceil((n + 1)(1 - rate))-th smallest calibration score, a valid level; infinite if n is too small."""
    position = math.ceil((len(calibration) + 1) * (1 - rate))
    return float(np.sort(calibration)[position - 1]) if position <= len(calibration) else math.inf


@metrics_of(
    with_control(
        Metric("auroc", "AUROC", "AUROC of a detector's score: triggered queries against the same queries without"
               " trigger; ties count half", DETECTION, methodology="auroc"),
        direction=0,
        meaning="AUROC of a detector's score under the clean model: triggered queries against the same queries without"
        " trigger",
    ),
    Metric("tpr_1", "TPR@1%", "largest share of triggered queries that a detector's score finds while it flags at most"
           " 1 % of the same queries without trigger", DETECTION, methodology="auroc"),
    Metric("tpr_5", "TPR@5%", "largest share of triggered queries that a detector's score finds while it flags at most"
           " 5 % of the same queries without trigger", DETECTION, methodology="auroc"),
)  # fmt: skip
def separation(scores: DetectorScores) -> Mapping[str, Number]:
    if not len(scores.positions):
        return dict.fromkeys(("auroc", "tpr_1", "tpr_5"))
    paired = scores.benign[scores.positions]
    return {
        "auroc": ranking.auroc(paired, scores.triggered),
        "tpr_1": ranking.tpr_at_fpr(paired, scores.triggered, 0.01),
        "tpr_5": ranking.tpr_at_fpr(paired, scores.triggered, 0.05),
    }


@metrics_of(
    Metric(
        "caught_5",
        "caught@5%",
        f"share of triggered queries above {AT_5}",
        DETECTION,
        methodology="calibrated-thresholds",
    ),
    with_control(
        Metric(
            "alarms_1",
            "alarms@1%",
            f"share of benign queries above {AT_1}",
            DETECTION,
            direction=-1,
            methodology="calibrated-thresholds",
        ),
        title="clean alarms@1%",
        meaning=f"share of benign queries above {AT_1}; under the clean model",
    ),
    with_control(
        Metric(
            "alarms_5",
            "alarms@5%",
            f"share of benign queries above {AT_5}",
            DETECTION,
            direction=-1,
            methodology="calibrated-thresholds",
        ),
        title="clean alarms@5%",
        meaning=f"share of benign queries above {AT_5}; under the clean model",
    ),
)
def alarms(scores: DetectorScores) -> Mapping[str, Number]:
    found: dict[str, Number] = dict.fromkeys(("alarms_1", "alarms_5", "caught_5"))
    at_1, at_5 = threshold(scores.calibration, 0.01), threshold(scores.calibration, 0.05)
    if math.isfinite(at_1):
        found["alarms_1"] = float((scores.benign > at_1).mean())
    if math.isfinite(at_5):
        found["alarms_5"] = float((scores.benign > at_5).mean())
        found["caught_5"] = float((scores.triggered > at_5).mean()) if len(scores.triggered) else None
    return found


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "auroc": {
        "formula": "share of pairs (triggered query, the same queries without trigger) in which the triggered one"
        " has the higher score",
        "example": "1.000: every triggered query is above every benign one; 0.5: chance",
        "silent": "the threshold that a user would set: see caught@5%",
    },
    "tpr_1": {
        "formula": "largest share of triggered queries found at 1 % or fewer false alarms",
        "example": "0.12: twelve of a hundred",
        "silent": "that a user can find this threshold: it is chosen with the trigger known",
    },
    "tpr_5": {
        "formula": "largest share of triggered queries found at 5 % or fewer false alarms",
        "example": "0.85: eighty-five of a hundred",
        "silent": "that a user can find this threshold: it is chosen with the trigger known",
    },
    "caught_5": {
        "formula": "share of triggered queries above the threshold that 5 % of trusted images exceed",
        "example": "0.85 with alarms@5% 0.06",
        "silent": "anything without alarms@5%, which says what the same threshold costs",
    },
    "alarms_5": {
        "formula": "share of benign queries above the same threshold as caught@5%",
        "example": "0.05 is as intended, 0.20 four times too many",
        "silent": "a fault of the detector where few trusted images are: see the note about chance",
    },
    "alarms_1": {
        "formula": "share of benign queries above the threshold that 1 % of trusted images exceed",
        "example": "0.01 is as intended",
        "silent": "a fault of the detector where few trusted images are: see the note about chance",
    },
}

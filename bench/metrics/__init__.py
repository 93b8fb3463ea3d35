"""Metrics, version 1: what every number on a board is, and how it is computed from stored codes and scores.

One module per section declares its metrics (see `registry`). Formulas of ranking are in `hashing.ranking`
(METHODOLOGY.md#ties). Nothing here imports torch: boards compute numbers again from stored artifacts.
"""

from __future__ import annotations

from bench.metrics.context import DetectorScores, ModelCodes, TrialFacts, Truth
from bench.metrics.registry import METRICS, Metric, Number, all_groups, metric, metrics_of, with_control

__all__ = [
    "METRICS", "VERSION", "DetectorScores", "Metric", "ModelCodes", "Number", "TrialFacts", "Truth", "metric",
    "metrics_of", "of_codes", "of_scores", "of_trial", "with_control",
]  # fmt: skip

VERSION = 1


def of_codes(codes: ModelCodes, *sections: str) -> dict[str, Number]:
    """The metrics of one model's codes, without controls. sections: only these; all without any."""
    return {
        name: value
        for group in all_groups()
        if group.source == ModelCodes.__name__ and (not sections or group.metrics[0].section in sections)
        for name, value in group.values(codes).items()
    }


def of_trial(trial: TrialFacts) -> dict[str, Number]:
    """Every metric of a trial but those of input detectors; controls come from the clean model."""
    found: dict[str, Number] = {}
    for group in all_groups():
        if group.source == ModelCodes.__name__:
            found |= group.values(trial.model) | group.control_values(trial.clean)
        elif group.source == TrialFacts.__name__:
            found |= group.values(trial)
    return found


def of_scores(scores: DetectorScores, control: DetectorScores) -> dict[str, Number]:
    """Every metric of one score of an input detector. control: the same score on the clean model."""
    found: dict[str, Number] = {}
    for group in all_groups():
        if group.source == DetectorScores.__name__:
            found |= group.values(scores) | group.control_values(control)
    return found

"""Metrics, version 1: the numbers of the boards, computed from stored codes and scores.

Each module declares the metrics of one section (see `registry`). Ranking formulas are in `hashing.ranking`
(METHODOLOGY.md#ties). The package does not import torch, so that boards can recompute numbers from stored artifacts.
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
    """The metrics of the codes of one model, without controls. sections: names of sections; default: all."""
    return {
        name: value
        for group in all_groups()
        if group.source == ModelCodes.__name__ and (not sections or group.metrics[0].section in sections)
        for name, value in group.values(codes).items()
    }


def of_trial(trial: TrialFacts) -> dict[str, Number]:
    """All metrics of a trial except those of input detectors. Controls are the metrics of the clean model."""
    found: dict[str, Number] = {}
    for group in all_groups():
        if group.source == ModelCodes.__name__:
            found |= group.values(trial.model) | group.control_values(trial.clean)
        elif group.source == TrialFacts.__name__:
            found |= group.values(trial)
    return found


def of_scores(scores: DetectorScores, control: DetectorScores) -> dict[str, Number]:
    """All metrics of one score of an input detector. control: the same score on the clean model."""
    found: dict[str, Number] = {}
    for group in all_groups():
        if group.source == DetectorScores.__name__:
            found |= group.values(scores) | group.control_values(control)
    return found

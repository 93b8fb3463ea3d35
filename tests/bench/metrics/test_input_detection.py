"""Input detectors: thresholds, alarms and pairs of the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.metrics import (
    DetectorScores,
    Number,
    of_scores,
)
from bench.metrics.input_detection import threshold


def detector(*arrays: np.ndarray) -> dict[str, Number]:
    scores = DetectorScores(*arrays)
    return of_scores(scores, scores)


@pytest.mark.parametrize(
    ("count", "rate", "position"), [(100, 0.01, 100), (100, 0.05, 96), (199, 0.05, 190), (98, 0.01, None)]
)
def test_threshold_is_the_conformal_quantile(count: int, rate: float, position: int | None) -> None:
    scores = np.random.default_rng(count).permutation(count).astype(np.float64) + 1
    found = threshold(scores, rate)
    assert found == (math.inf if position is None else position)


def test_threshold_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    alarms = [(rng.standard_normal(2000) > threshold(rng.standard_normal(100), 0.05)).mean() for _ in range(400)]
    assert np.mean(alarms) == pytest.approx(5 / 101, abs=0.005)  # 1 - 96 / 101


def test_a_separable_score_is_a_perfect_detector() -> None:
    benign, calibration = np.linspace(0, 1, 200), np.linspace(0, 1, 100)
    pairs = np.arange(200)
    found = detector(benign, pairs, benign + 2, calibration)
    assert found["auroc"] == found["tpr_1"] == found["caught_5"] == 1
    assert found["alarms_5"] <= 0.06
    none = detector(benign, pairs, benign, calibration)
    assert none["auroc"] == pytest.approx(0.5)
    assert detector(benign, pairs, benign, calibration[:50])["alarms_1"] is None, "50 images allow no 1 %"


def test_alarms_count_every_benign_query_but_pairs_are_the_same_images() -> None:
    benign = np.array([0.0] * 90 + [9.0] * 10)  # the last ten carry the target's label and are never triggered
    found = detector(benign, np.arange(90), np.full(90, 1.0), np.linspace(0, 2, 100))
    assert found["alarms_5"] == pytest.approx(0.1)
    assert found["auroc"] == 1

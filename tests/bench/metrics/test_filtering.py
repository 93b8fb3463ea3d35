"""Data filters: against poison masks planted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics import (
    Number,
    TrialFacts,
    of_trial,
)
from bench.metrics.context import FilterFacts
from tests.bench.metrics.systems import CENTRES, model, one_hot, truth


def filtering(*arrays: np.ndarray) -> dict[str, Number]:
    nothing = model((CENTRES[:1], CENTRES[:1], CENTRES[:0]), truth(one_hot([0], 2), one_hot([0], 2), [1], []))
    return of_trial(TrialFacts(nothing, nothing, filtered=FilterFacts(*arrays)))


def test_filters_are_judged_pooled_and_inside_the_target_class() -> None:
    scores = np.array([0.0, 1, 2, 3, 4, 5])
    mask = np.array([0, 0, 0, 1, 0, 1], dtype=bool)
    in_target = np.array([1, 0, 0, 1, 1, 1], dtype=bool)
    keep = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    found = filtering(scores, keep, mask, in_target)
    assert found["removed"] == pytest.approx(2 / 6)
    assert found["removed_poison"] == pytest.approx(1 / 2)
    assert found["removed_precision"] == pytest.approx(1 / 2)
    assert found["filter_auroc"] == pytest.approx(7 / 8)
    assert found["filter_auroc_target"] == pytest.approx(3 / 4)
    clean = filtering(scores, keep, np.zeros(6, dtype=bool), in_target)
    assert clean["filter_auroc"] is None
    assert filtering(scores, np.ones(6, dtype=bool), mask, in_target)["removed_precision"] is None

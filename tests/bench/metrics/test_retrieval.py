"""Retrieval of benign queries: which queries count."""

from __future__ import annotations

import pytest

from tests.bench.metrics.systems import CENTRES, benign_metrics, one_hot, system, truth


def test_queries_without_anything_relevant_are_counted_out() -> None:
    labels, database = one_hot([0, 2], 3), one_hot([0, 0, 1], 3)
    codes = CENTRES[[0, 2]]
    found = benign_metrics(system(codes, CENTRES[[0, 0, 1]], codes[:0]), truth(labels, database, [1]))
    assert found["map"] == pytest.approx(1)
    assert found["map_excluded"] == 1
    assert found["map_zero"] == pytest.approx(0.5), "the papers' convention counts it 0"
    assert found["map_drop"] == pytest.approx(1)
    assert found["map_kept"] == pytest.approx(1)
    assert found["map_target"] is None

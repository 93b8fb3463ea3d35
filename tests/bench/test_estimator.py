"""Estimates are medians over stages like the one asked for, else over the same stage, else guesses."""

from __future__ import annotations

import pytest

from bench.artifacts.inputs import EncodeInputs, TrainInputs
from bench.engine.estimator import GUESSED_BYTES, RuntimeEstimator
from bench.graph.labels import CostGroup
from tests.stores import record

SMALL, LARGE, OTHER = (CostGroup("train", setting) for setting in ("small", "large", "other"))
ENCODE = CostGroup("encode", "small")


def done(key: str, group: CostGroup, seconds: float, size: int | None = None, status: str = "ok") -> object:
    artifact = None if size is None else {"sha256": "0" * 64, "bytes": size}
    cost = {"seconds": seconds, "started": 0.0, "host": "here"}
    return record(key, group.stage, cost_group=group.setting, status=status, cost=cost, artifact=artifact)


def test_seconds_are_those_of_the_group_else_of_the_stage_else_guessed() -> None:
    estimator = RuntimeEstimator([done("a", SMALL, 4.0), done("b", SMALL, 1.0), done("c", LARGE, 9.0)])
    assert estimator.seconds(SMALL) == 2.5
    assert estimator.seconds(OTHER) == 4.0
    assert estimator.seconds(ENCODE) == EncodeInputs.guessed_seconds
    assert [estimator.has_history(group) for group in (SMALL, OTHER)] == [True, False]
    assert estimator.total({SMALL: 2, ENCODE: 1, LARGE: 0}) == 2 * 2.5 + EncodeInputs.guessed_seconds


def test_failures_teach_nothing() -> None:
    estimator = RuntimeEstimator([done("a", SMALL, 100.0, status="timeout")])
    assert not estimator.has_history(SMALL)
    assert estimator.seconds(SMALL) == TrainInputs.guessed_seconds


def test_bytes_are_those_of_the_group_else_guessed() -> None:
    estimator = RuntimeEstimator([done("a", SMALL, 1.0, 10), done("b", SMALL, 1.0, 30)])
    assert estimator.total_bytes({SMALL: 3, OTHER: 1}) == pytest.approx(3 * 20 + GUESSED_BYTES)
    assert estimator.total_bytes({}) == 0.0

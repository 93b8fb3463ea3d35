"""Estimates are medians over stages like the one asked for, else over the same stage, else guesses."""

from __future__ import annotations

import pytest

from bench.engine.estimator import GUESS, GUESSED_BYTES, RuntimeEstimator
from tests.stores import record


def done(key: str, group: str, seconds: float, size: int | None = None, status: str = "ok") -> object:
    artifact = None if size is None else {"sha256": "0" * 64, "bytes": size}
    cost = {"seconds": seconds, "started": 0.0, "host": "here"}
    return record(key, "train", group=group, status=status, cost=cost, artifact=artifact)


def test_seconds_are_those_of_the_group_else_of_the_stage_else_guessed() -> None:
    estimator = RuntimeEstimator(
        [done("a", "train small", 4.0), done("b", "train small", 1.0), done("c", "train large", 9.0)]
    )
    assert estimator.seconds("train small") == 2.5
    assert estimator.seconds("train other") == 4.0
    assert estimator.seconds("encode other") == GUESS["encode"]
    assert [estimator.has_history(group) for group in ("train small", "train other")] == [True, False]
    assert estimator.total({"train small": 2, "encode x": 1, "train large": 0}) == 2 * 2.5 + GUESS["encode"]


def test_failures_teach_nothing() -> None:
    estimator = RuntimeEstimator([done("a", "train small", 100.0, status="timeout")])
    assert not estimator.has_history("train small")
    assert estimator.seconds("train small") == GUESS["train"]


def test_bytes_are_those_of_the_group_else_guessed() -> None:
    estimator = RuntimeEstimator([done("a", "train small", 1.0, 10), done("b", "train small", 1.0, 30)])
    assert estimator.total_bytes({"train small": 3, "train other": 1}) == pytest.approx(3 * 20 + GUESSED_BYTES)
    assert estimator.total_bytes({}) == 0.0

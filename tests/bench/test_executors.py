"""The executor of this process takes one stage at a time."""

from __future__ import annotations

from pathlib import Path

from bench.engine.executors import SerialExecutor
from bench.engine.worker import Environment


def test_the_serial_executor_takes_one_at_a_time(tmp_path: Path) -> None:
    executor = SerialExecutor(Environment(tmp_path, None, "cpu"))
    assert executor.poll(0.0) == []
    assert executor.slots == 1

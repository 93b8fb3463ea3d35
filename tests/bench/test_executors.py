"""Stages in this process and under Ray: the same results, limits of the machine, and an end for what hangs or dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engine.executors import SerialExecutor
from bench.engine.ray_executor import RayExecutor
from bench.engine.scheduler import Frontier, NoProgress, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph.plan import Plan, Stage
from tests.bench.conftest import finish
from tests.bench.test_scheduler import by_number, loads, number_of, trouble_spec

Tiny = Callable[..., Plan]


@pytest.fixture
def ray_site(tmp_path: Path, trouble: Path) -> Environment:
    Store(tmp_path / "store", create=True)
    return Environment(tmp_path / "store", None, "cpu", (trouble,))


def test_ray_packs_four_quarters_of_a_gpu_and_never_a_fifth(tmp_path: Path, ray_site: Environment) -> None:
    """Each stage waits until four have begun, and a second longer, in which a fifth could begin."""
    marks = tmp_path / "marks"
    marks.mkdir()
    specs = [trouble_spec(number=n, seconds=1.0, together=4, marks=str(marks)) for n in range(9)]
    plan = loads(tmp_path, *specs)
    store = Store(ray_site.store)
    summary = run_plan(plan, store, lambda: RayExecutor(ray_site, workers=8, gpus=1.0))
    assert summary.trials == {"ok": 9}
    spans = [(float((marks / f"{n}.start").read_text()), float((marks / f"{n}.end").read_text())) for n in range(9)]
    in_flight = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(in_flight) == 4


@pytest.mark.slow  # tests/faults/test_stages.py has a shorter one
def test_ray_kills_what_hangs_resubmits_what_died_and_goes_on(tmp_path: Path, ray_site: Environment) -> None:
    plan = loads(
        tmp_path,
        trouble_spec(number=0, seconds=3000.0),
        trouble_spec(number=1, what="die"),
        trouble_spec(number=2, what="raise"),
        trouble_spec(number=3),
        hanging=0,
    )
    store = Store(ray_site.store)
    told: list[str] = []

    class Ears(NoProgress):
        def retrying(self, stage: Stage, reason: str) -> None:
            told.append(reason)

    summary = run_plan(plan, store, lambda: RayExecutor(ray_site, workers=2), listen=Ears())
    statuses = {number: record.status for number, record in by_number(plan, store).items()}
    assert statuses == {0: "timeout", 1: "killed", 2: "failed", 3: "ok"}
    assert len(told) == 2, "a killed stage is tried three times in all"
    assert summary.ran["killed"] == 1
    # killed is never final: the next run tries again
    assert 1 in map(number_of, Frontier(plan, store, ()).needed.values())


def test_both_executors_give_bit_identical_metrics(tmp_path: Path, tiny: Tiny) -> None:
    plan = tiny("defenses=none,fine_pruning", "bits=12")
    serial, parallel = Store(tmp_path / "serial", create=True), Store(tmp_path / "ray", create=True)
    finish(plan, serial)
    run_plan(plan, parallel, lambda: RayExecutor(Environment(parallel.root, None, "cpu"), workers=2))
    assert len(plan.trials) == 4
    for key in plan.stages:
        one, other = serial.record(key), parallel.record(key)
        assert one.status == other.status == "ok"
        assert one.metrics == other.metrics
        assert one.checksum == other.checksum, one.label


def test_the_serial_executor_takes_one_at_a_time(tmp_path: Path) -> None:
    executor = SerialExecutor(Environment(tmp_path, None, "cpu"))
    assert executor.poll(0.0) == []
    assert executor.slots == 1

"""Failures are records, the rest goes on, and the same command continues: in this process and under Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config import suite as suites
from bench.config.trial import PlannedTrial
from bench.engine.executors import SerialExecutor
from bench.engine.ray_executor import RayExecutor
from bench.engine.record import Record
from bench.engine.scheduler import Frontier, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph import planner as planning
from bench.graph.planner import Plan
from tests.bench.conftest import finish

Tiny = Callable[..., Plan]


def loads(tmp_path: Path, *datasets: str, timeout: float = 60) -> Plan:
    """A plan of `load` stages only: one cell each."""
    path = tmp_path / "loads.toml"
    path.write_text(f"[resources]\ntimeout = {timeout}\n[axes]\ndatasets = [{', '.join(datasets)}]\n")
    made = planning.plan([suites.load(str(path))], data=None, device="cpu")
    stages = {key: stage for key, stage in made.stages.items() if stage.kind == "load"}
    first = made.trials[0].trial
    return Plan(stages, [PlannedTrial(replace(first, seed=i), key) for i, key in enumerate(stages)])


def trouble_spec(**params: object) -> str:
    inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in params.items())
    return f'{{ name = "trouble", {inner} }}'


def by_number(plan: Plan, store: Store) -> dict[int, Record]:
    return {stage.spec["dataset"]["params"]["number"]: store.record(key) for key, stage in plan.stages.items()}


def test_a_failing_stage_is_a_record_and_the_rest_goes_on(tmp_path: Path, trouble: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = loads(
        tmp_path,
        trouble_spec(number=0, what="raise"),
        trouble_spec(number=1),
        trouble_spec(number=2, what="memory"),
        trouble_spec(number=3, seconds=30.0),
        trouble_spec(number=4, what="allocate"),
        timeout=1,
    )
    started = time.monotonic()
    summary = finish(plan, store)
    assert time.monotonic() - started < 15
    records = by_number(plan, store)
    assert {number: record.status for number, record in records.items()} == {
        0: "failed",
        1: "ok",
        2: "oom",
        3: "timeout",
        4: "oom",
    }
    assert "the disc fell out" in records[0].reason
    assert "RuntimeError" in records[0].log
    assert "1 s" in records[3].reason
    assert summary.trials == {"failed": 1, "ok": 1, "oom": 2, "timeout": 1}


def test_failures_stay_until_retry(tmp_path: Path, trouble: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = loads(tmp_path, trouble_spec(what="raise"))
    assert finish(plan, store).ran == {"failed": 1}
    again = finish(plan, store)
    assert again.ran == {}
    assert again.trials == {"failed": 1}
    assert finish(plan, store, retry={"timeout"}).ran == {}
    assert finish(plan, store, retry={"failed"}).ran == {"failed": 1}


def test_what_depends_on_a_failure_names_it_and_recovers_with_it(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.stages import implant

    store = Store(tmp_path / "store", create=True)
    plan = tiny("defenses=none,fine_pruning")
    with monkeypatch.context() as patch:
        patch.setattr(implant, "check", lambda *_: (_ for _ in ()).throw(RuntimeError("no luck")))
        summary = finish(plan, store)
    assert summary.trials == {"ok": 2, "failed": 2}
    assert summary.ran["failed"] == 1
    for trial in plan.trials:
        record = store.record(trial.key)
        assert record is not None
        if trial.trial.attack.name == "badnets":
            assert record.status == "failed"
            assert record.cause in plan.stages
            assert "no luck" in record.reason
    assert finish(plan, store, retry={"failed"}).trials == {"ok": 4}


def test_a_second_run_does_nothing_and_a_damaged_artifact_is_made_again(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    finish(plan, store)
    metrics = {trial.key: store.record(trial.key).metrics for trial in plan.trials}
    assert finish(plan, store).ran == {}
    train = next(key for key, stage in plan.stages.items() if stage.kind == "train")
    path = store.artifact_path(train)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    wider = tiny("defenses=none,fine_pruning")
    summary = finish(wider, store)
    assert train in [key for key in wider.stages if store.record(key).cost.seconds > 0]
    assert (store.root / "damaged" / path.name).exists()
    assert store.intact(store.record(train))
    assert summary.trials == {"ok": 4}
    assert {key: store.record(key).metrics for key in metrics} == metrics


def test_an_interrupt_loses_nothing(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()

    class Impatient:
        def begin(self, stages) -> None: ...
        def start(self, stage) -> None: ...
        def retrying(self, stage, reason) -> None: ...
        def end(self, stage, record) -> None:
            if stage.kind == "train":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(plan, store, listen=Impatient())
    left = Frontier(plan, store, ()).needed
    assert "train" not in {stage.kind for stage in left.values()}
    assert finish(plan, store).trials == {"ok": 2}


@pytest.fixture
def ray_site(tmp_path: Path, trouble: Path) -> Environment:
    Store(tmp_path / "store", create=True)
    return Environment(tmp_path / "store", None, "cpu", (trouble,))


def test_ray_packs_four_quarters_of_a_gpu_and_never_a_fifth(tmp_path: Path, ray_site: Environment) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    specs = [trouble_spec(number=n, seconds=1.5, marks=str(marks)) for n in range(9)]
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
        trouble_spec(number=0, seconds=600.0),
        trouble_spec(number=1, what="die"),
        trouble_spec(number=2, what="raise"),
        trouble_spec(number=3),
        timeout=6,
    )
    store = Store(ray_site.store)
    told: list[str] = []

    class Ears:
        def begin(self, stages) -> None: ...
        def start(self, stage) -> None: ...
        def end(self, stage, record) -> None: ...
        def retrying(self, stage, reason) -> None:
            told.append(reason)

    started = time.monotonic()
    summary = run_plan(plan, store, lambda: RayExecutor(ray_site, workers=2), listen=Ears())
    assert time.monotonic() - started < 120
    statuses = {number: record.status for number, record in by_number(plan, store).items()}
    assert statuses == {0: "timeout", 1: "killed", 2: "failed", 3: "ok"}
    assert len(told) == 2, "a killed stage is tried three times in all"
    assert summary.ran["killed"] == 1
    # killed is never final: the next run tries again
    assert any(stage.spec["dataset"]["params"]["number"] == 1 for stage in Frontier(plan, store, ()).needed.values())


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


def test_a_worker_with_other_code_refuses(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.engine import worker

    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    monkeypatch.setattr(worker, "fingerprint", lambda modules: "different")
    summary = finish(plan, store)
    assert summary.trials == {"failed": 2}
    assert "differs from the driver's" in summary.failures[0].reason


def test_the_serial_executor_takes_one_at_a_time(tmp_path: Path) -> None:
    executor = SerialExecutor(Environment(tmp_path, None, "cpu"))
    assert executor.poll(0.0) == []
    assert executor.slots == 1

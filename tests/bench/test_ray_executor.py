"""Stages under Ray: the results of a serial run, the limits of the machine, and an end for what hangs or dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.engine.ray_executor import RayExecutor
from bench.engine.scheduler import Frontier, NoProgress, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment
from bench.graph.plan import Plan, Stage
from tests.bench.conftest import finish
from tests.bench.test_scheduler import by_number, loads, number_of, trouble_spec

Tiny = Callable[..., Plan]


@pytest.fixture
def ray_environment(tmp_path: Path, trouble: Path) -> Environment:
    Store(tmp_path / "store", create=True)
    return Environment(tmp_path / "store", None, "cpu", (trouble,))


@pytest.mark.long
def test_ray_packs_four_quarters_of_a_gpu_and_never_a_fifth(tmp_path: Path, ray_environment: Environment) -> None:
    """Each stage waits until four have begun, and a second longer, in which a fifth could begin."""
    marks = tmp_path / "marks"
    marks.mkdir()
    specs = [trouble_spec(number=n, seconds=1.0, together=4, marks=str(marks)) for n in range(9)]
    plan = loads(tmp_path, *specs)
    store = Store(ray_environment.store)
    summary = run_plan(plan, store, lambda: RayExecutor(ray_environment, workers=8, gpus=1.0))
    assert summary.trials == {"ok": 9}
    spans = [(float((marks / f"{n}.start").read_text()), float((marks / f"{n}.end").read_text())) for n in range(9)]
    in_flight = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(in_flight) == 4


@pytest.mark.slow  # tests/faults/test_stages.py has a shorter one
def test_ray_kills_what_hangs_resubmits_what_died_and_goes_on(tmp_path: Path, ray_environment: Environment) -> None:
    plan = loads(
        tmp_path,
        trouble_spec(number=0, seconds=3000.0),
        trouble_spec(number=1, what="die"),
        trouble_spec(number=2, what="raise"),
        trouble_spec(number=3),
        hanging=0,
    )
    store = Store(ray_environment.store)
    told: list[str] = []

    class Ears(NoProgress):
        def retrying(self, stage: Stage, reason: str) -> None:
            told.append(reason)

    summary = run_plan(plan, store, lambda: RayExecutor(ray_environment, workers=2), listen=Ears())
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


@pytest.mark.long
def test_a_folder_of_a_dead_driver_goes_once_none_of_its_processes_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that outlive their driver for a moment still need it."""
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    needed, left = (Path("/tmp", f"hashdoor-ray-{dead.pid}-{name}") for name in ("needed", "left"))
    needed.mkdir()
    left.mkdir()
    try:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(needed)]) as living:
            RayExecutor(Environment(tmp_path, None, "cpu"), workers=1).close()
            living.kill()
        assert (needed.exists(), left.exists()) == (True, False)
    finally:
        needed.rmdir()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), PermissionError(13, "Permission denied", "/nonexistent"), SystemExit(1),
     OSError("AF_UNIX path length cannot exceed 107 bytes"), RuntimeError("raylet died\nlog\nmore"), ValueError(),
     ConnectionError("x" * 10_000), TimeoutError("Timed out waiting for the GCS")],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_every_way_in_which_ray_fails_to_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, address: str | None
) -> None:
    """Such machines are not to be had in a test: Ray's own call fails instead."""
    import ray

    def fail(**given: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    before = set(Path("/tmp").glob("hashdoor-ray-*"))
    with pytest.raises(UserError) as caught:
        RayExecutor(Environment(tmp_path, None, "cpu"), workers=1, address=address)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 900
    wanted = ("--address", "RAY_AUTH_TOKEN") if address else ("--executor serial", "TMPDIR", "HOME", "RAY_AUTH_TOKEN")
    assert all(word in said for word in wanted)
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert set(Path("/tmp").glob(f"hashdoor-ray-{os.getpid()}-*")) <= before


def test_without_any_folder_for_sockets_ray_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**given: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(UserError, match=r"--executor serial.*TMPDIR"):
        RayExecutor(Environment(tmp_path, None, "cpu"), workers=1)

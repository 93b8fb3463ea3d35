"""Stages that die, hang, fail or give nonsense in the middle of a suite: what is left, and what --retry does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engine.record import Record
from bench.engine.store import Store
from tests.faults._bench import SUITE, Driver, finished, run, until, verified

pytestmark = pytest.mark.long

Start = Callable[..., Driver]
STATUS = {"fine": "ok", "fail": "failed", "die": "killed", "hang": "timeout", "nan": "failed"}


LONG = 3600  # seconds that no stage needs, on however slow a machine
SHORT = 5  # of the stage that hangs


def suite_of(folder: Path, *moods: str, timeout: float = LONG) -> Path:
    """Clean models, each repaired in one of these moods."""
    path = folder.parent / f"{'_'.join(moods)}.toml"
    named = ", ".join(f'{{ name = "moody", what = "{mood}", folder = "{folder}" }}' for mood in moods)
    body = SUITE.replace('{ name = "fine_pruning", steps = 2 }', named).replace(', "badnets"', "")
    path.write_text(f"{body}[resources]\ntimeout = {timeout}\n")
    return path


def repairs(store: Path) -> dict[str, Record]:
    """The record of each mood's repair."""
    found = [record for record in Store(store).records() if record.stage == "defend"]
    return {record.spec["defense"]["params"]["what"]: record for record in found}


def test_every_failure_is_a_record_with_its_last_words(
    tmp_path: Path, drivers: Start, moody: tuple[Path, Path]
) -> None:
    plugin, folder = moody
    store, suite = tmp_path / "store", suite_of(folder, *(mood for mood in STATUS if mood != "hang"))
    more = "--suite", suite_of(folder, "hang", timeout=SHORT), "--plugin", plugin  # what both need has the long time
    driver = drivers(suite, store, *more)
    assert driver.finish() == 1, driver.err
    assert "Traceback" not in driver.err
    records = repairs(store)
    assert {mood: record.status for mood, record in records.items()} == STATUS
    assert "worker died" in records["die"].reason
    assert "these are my last words" in records["die"].log
    assert f"{SHORT} s" in records["hang"].reason
    assert "moody.py" in records["hang"].log, "a hanging stage must say where"
    assert "in hang" in records["hang"].log
    assert records["fail"].reason.startswith("ValueError: ")
    assert "in fail" in records["fail"].log
    assert records["nan"].reason
    assert records["nan"].log
    trials = [record for record in Store(store).records() if record.stage == "measure"]
    assert sorted(record.status for record in trials) == ["failed", "failed", "killed", "ok", "ok", "timeout"]
    for record in trials:  # who is blocked names the cause
        assert record.status == "ok" or store.joinpath("records", f"{record.cause}.json").exists()
    assert list((store / "running").iterdir()) == []
    verified(store)
    kept = finished(store)
    (folder / "well").touch()  # from now on nothing fails
    for retry, code, left in (
        ("", 1, {"fail": "failed", "hang": "timeout", "nan": "failed"}),  # killed is never final
        ("timeout", 1, {"fail": "failed", "nan": "failed"}),
        ("failed,timeout,oom", 0, {}),
    ):
        found, _, err = run(suite, store, *more, "--retry", retry, "--set", f"resources.timeout={LONG}")
        assert found == code, err
        assert {m: r.status for m, r in repairs(store).items() if r.status != "ok"} == left
    assert {key: finished(store)[key] for key in kept} == kept
    verified(store)


@pytest.mark.slow
def test_a_worker_that_is_killed_once_is_replaced(tmp_path: Path, drivers: Start, moody: tuple[Path, Path]) -> None:
    plugin, folder = moody
    store = tmp_path / "store"
    driver = drivers(suite_of(folder, "once"), store, "--plugin", plugin)
    until((folder / "pid").exists, "the worker to enter its stage")
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    assert driver.finish() == 0, driver.err
    assert "worker died" in driver.err
    verified(store)


@pytest.mark.slow
def test_a_stage_that_takes_too_much_memory_is_stopped_alone(
    tmp_path: Path, drivers: Start, moody: tuple[Path, Path]
) -> None:
    """Ray's own memory monitor, with what is in use now and 4 GB more as its limit."""
    plugin, folder = moody
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    share = (total - free + 4e9) / total
    if share > 0.9:
        pytest.skip("needs 4 GB of free memory")
    store, suite = tmp_path / "store", suite_of(folder, "grow", "fine")
    limits = {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "50"}
    driver = drivers(suite, store, "--plugin", plugin, **limits)
    assert driver.finish() == 1, driver.err
    assert {mood: record.status for mood, record in repairs(store).items()} == {"grow": "oom", "fine": "ok"}
    assert "memory" in repairs(store)["grow"].reason
    (folder / "well").touch()
    code, _, err = run(suite, store, "--plugin", plugin, "--retry", "oom")
    assert code == 0, err
    verified(store)

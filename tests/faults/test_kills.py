"""A driver that is killed at any moment: the next one goes on, and nobody can tell from the results."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults._bench import (
    PATIENCE,
    ROOT,
    SUITE,
    Driver,
    alive,
    board,
    family,
    finished,
    results,
    run,
    unfinished,
    until,
    verified,
)

pytestmark = pytest.mark.long

Start = Callable[..., Driver]
Undisturbed = tuple[str, dict[str, bytes]]


def survive(driver: Driver, store: Path, rng: random.Random, left: int) -> bool:
    """Kill the driver at a random moment: at its start, or some records and a little time later.

    Returns whether it was still there to be killed.
    """
    if rng.random() < 0.25:
        wanted, pause = 0, rng.uniform(0, 8)
    else:
        wanted, pause = rng.randint(1, max(1, left // 2)), rng.uniform(0, 0.3)
    before, deadline = len(finished(store)), time.monotonic() + PATIENCE
    while len(finished(store)) < before + wanted and driver.process.poll() is None:
        assert time.monotonic() < deadline, driver.err
        time.sleep(0.01)
    time.sleep(pause)
    there = driver.process.poll() is None
    driver.kill()
    return there


def kill_again_and_again(
    suite: Path, store: Path, drivers: Start, undisturbed: Undisturbed, rng: random.Random, kills: int,
    last: str = "ray",
) -> int:  # fmt: skip
    """Kill a suite's drivers, one after the other, then let one finish; returns how many kills hit."""
    expected, records = undisturbed
    snapshots: list[dict[str, bytes]] = []
    hit = 0
    for number in range(kills + 1):
        before = finished(store)
        if len(before) == len(records):
            break
        driver = drivers(suite, store, executor="ray" if number < kills else last)
        if number < kills:
            hit += survive(driver, store, rng, len(records) - len(before))
        else:
            assert driver.finish() == 0, (driver.err, unfinished(store))
        snapshots.append(before)
        # workers of the dead driver may have finished a stage in between: then there is less to do, never more
        assert driver.planned is None or driver.planned <= len(records) - len(before), "finished stages were done again"
    final = finished(store)
    for before in snapshots:
        assert {key: final.get(key) for key in before} == before, "a finished record was lost or written again"
    assert results(final) == results(records)
    assert board(store) == expected
    verified(store)
    return hit


@pytest.mark.slow
def test_a_driver_killed_three_times_is_continued(
    suite: Path, tmp_path: Path, drivers: Start, undisturbed: Undisturbed
) -> None:
    assert kill_again_and_again(suite, tmp_path / "store", drivers, undisturbed, random.Random(5), 3, "serial") == 3


LATE = """
import sys
from pathlib import Path
from bench.config import suite
from bench.graph import planner
from bench.api import registry
from bench.engine.ray_executor import run_task
from bench.engine.store import Store
from bench.engine.worker import Environment, run_stage
suite_, store, plugin = map(Path, sys.argv[1:])
registry.load_plugin(plugin)
environment = Environment(Store(store, create=True).root, None, "cpu", (plugin,))
for stage in planner.plan([suite.load(str(suite_))], data=None, device="cpu").stages.values():
    if stage.kind in ("load", "split", "train"):
        run_stage(stage, environment)
    elif stage.kind == "defend" and stage.spec["defense"]["name"] == "moody":
        run_task(stage, environment, store / "running" / f"{stage.key}.dead")
"""


def test_a_worker_that_outlives_its_driver_does_no_harm(tmp_path: Path, moody: tuple[Path, Path]) -> None:
    """What a Ray worker does, in a process that no driver ends; Ray's own live for seconds, which is no test.

    It comes back when all is done, with a result that differs, as from another kind of machine.
    """
    plugin, folder = moody
    store, suite = tmp_path / "store", tmp_path / "late.toml"
    mood = f'{{ name = "moody", what = "once", folder = "{folder}" }}'
    suite.write_text(SUITE.replace('{ name = "fine_pruning", steps = 2 }', mood).replace(', "badnets"', ""))
    worker = subprocess.Popen([sys.executable, "-c", LATE, suite, store, plugin], cwd=ROOT)
    try:
        until((folder / "pid").exists, "the worker to enter its stage")
        assert len(list((store / "running").iterdir())) == 1
        code, _, err = run(suite, store, "--plugin", plugin)
        assert code == 0, err
        expected, records = board(store), finished(store)
        (folder / "go").touch()
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
        worker.wait()
    assert list((store / "running").iterdir()) == []
    assert finished(store) == records
    assert board(store) == expected
    verified(store)


@pytest.mark.slow
def test_twenty_kills(suite: Path, tmp_path: Path, drivers: Start, undisturbed: Undisturbed) -> None:
    rng, hits, rounds = random.Random(20), 0, 0
    while hits < 20:
        store = tmp_path / f"store{rounds}"
        hits += kill_again_and_again(suite, store, drivers, undisturbed, rng, min(4, 20 - hits))
        rounds += 1
        assert rounds <= 10, f"only {hits} kills hit a running driver"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_request_to_stop_while_ray_starts_is_an_interrupt_and_leaves_nothing(
    suite: Path, tmp_path: Path, drivers: Start, number: signal.Signals
) -> None:
    driver = drivers(suite, tmp_path / "store")

    def folders() -> list[Path]:
        """Where Ray runs: in RAY_TMPDIR if that is short enough."""
        name = f"hashdoor-ray-{driver.process.pid}-*"
        return [found for base in (driver.folder, Path(tempfile.gettempdir())) for found in base.glob(name)]

    until(folders, "Ray to begin", 60)
    time.sleep(1)  # its first processes run, and not yet all
    driver.process.send_signal(number)
    assert driver.finish(60) == 130, driver.err
    assert "interrupted" in driver.err
    until(lambda: not [pid for pid in family(driver.process.pid) if alive(pid)], "Ray's processes to end", 10)
    assert folders() == []

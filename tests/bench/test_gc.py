"""Files that nothing needs are found; nothing else is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engine.gc import remove, unneeded
from bench.engine.record import RunManifest
from bench.engine.store import Store
from bench.graph.plan import Plan
from tests.bench.conftest import finish
from tests.stores import planned, record

Tiny = Callable[..., Plan]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def test_what_an_unfinished_run_has_made_is_kept(store: Store, tiny: Tiny) -> None:
    """Who runs out of disk is told to try gc, and that nothing finished is lost."""
    plan = tiny("attacks=none,badnets")
    store.write_run("tiny", RunManifest(suites=["tiny"], trials=plan.trials, stages=list(plan.stages)))
    finish(plan, store)
    for found in store.records():
        if found.stage in {"measure", "encode_triggered"}:  # as a kill leaves it
            (store.root / "records" / f"{found.key}.json").unlink()
    made = {found.key for found in store.records()}
    lost = {f"{key}.safetensors" for key in plan.stages.keys() - made}
    assert {path.name for path in unneeded(store)} <= lost, "an artifact without a record has not happened"
    remove(store, unneeded(store))
    summary = finish(plan, store)
    assert summary.trials == {"ok": 2}
    assert summary.ran["ok"] == len(plan.stages) - len(made)


def test_what_no_run_names_goes(store: Store) -> None:
    unfinished = planned("d" * 32, {"attack": "badnets"})
    store.write_run("x", RunManifest(suites=["x"], trials=[unfinished], stages=["f" * 32]))
    for key in ("e" * 32, "f" * 32):
        store.write_record(record(key, "train"))
    remove(store, unneeded(store))
    assert [held.key for held in store.records()] == ["f" * 32]


def test_files_that_are_not_the_stores_stay(store: Store, tmp_path: Path) -> None:
    """Names that are no keys, fresh files of a run that goes on, and whatever lies behind a link."""
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / ("a" * 32 + ".json")).write_text("{}")
    (outside / ".old.tmp").write_text("mine")
    os.utime(outside / ".old.tmp", (0, 0))
    (store.root / "damaged").symlink_to(outside)
    (store.root / "records" / "notes.json").write_text("{}")
    (store.root / "records" / ".fresh.tmp").write_text("half")
    assert unneeded(store) == []


def test_leftovers_of_killed_processes_go_when_they_are_a_day_old(store: Store) -> None:
    (store.root / "running").mkdir()
    left = [store.root / "artifacts" / ".x.tmp", store.root / "running" / "z.1234"]
    for path in left:
        path.write_text("half")
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert sorted(unneeded(store)) == sorted(left)

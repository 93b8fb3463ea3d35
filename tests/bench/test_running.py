"""The results of a run that goes on are safe from `gc`; those of a killed run can be removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.api.errors import StoreError
from bench.cli import runs as command
from bench.cli.app import main
from bench.engine import scheduler
from bench.engine.record import RunManifest
from bench.engine.running import marked
from bench.engine.scheduler import Summary
from bench.engine.store import Store
from bench.graph.plan import Plan
from tests.bench.conftest import TINY, finish


def tree(store: Store) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file."""
    files = [path for path in store.root.rglob("*") if path.is_file()]
    return {path.relative_to(store.root): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_run_that_goes_on_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, root = tmp_path / "tiny.toml", tmp_path / "store"
    suite.write_text(TINY)
    ran: list[str] = []

    def with_gc(plan: Plan, store: Store, *_: object, **__: object) -> Summary:
        (run,) = store.runs()
        before = tree(store)
        for words in ({"run": [run.id]}, {"older_than": "0h"}, {"older_than": "0h", "dry_run": True}):
            with pytest.raises(StoreError, match=f"run {run.id} is going on"):
                command.gc(store=root, **words)
        command.gc(store=root, keep=1)
        assert tree(store) == before
        ran.append(run.id)
        return finish(plan, store)

    monkeypatch.setattr(scheduler, "run_plan", with_gc)
    with pytest.raises(SystemExit) as stop:
        main(["run", "--suite", str(suite), "--store", str(root), "--device", "cpu", "--set", "attacks=none"])
    assert not stop.value.code
    assert not list((root / "running").iterdir())
    command.gc(store=root, run=ran)
    assert Store(root).runs() == []


KILLED = """
import os, sys
from pathlib import Path
from bench.engine.running import marked
from bench.engine.store import Store
with marked(Store(Path(sys.argv[1])), sys.argv[2]):
    os._exit(9)
"""


def test_a_run_that_was_killed_can_be_removed(store: Store) -> None:
    """A mark of another machine, whose locks may not be seen here, counts for a day."""
    first, second = (store.write_run(RunManifest(suites=[name], trials=[])) for name in "ab")
    subprocess.run([sys.executable, "-c", KILLED, str(store.root), first.id], check=False)
    (mark,) = (store.root / "running").iterdir()
    other = mark.with_name(f"{second.id}.x.run")
    other.write_text("another machine")
    os.mkfifo(mark.with_name(f"{first.id}.y.run"))
    command.gc(store=store.root, run=[first.id])
    with pytest.raises(StoreError, match=f"{second.id} is going on on machine 'another machine'"):
        command.gc(store=store.root, run=[second.id])
    os.utime(other, (time.time() - 90_000, time.time() - 90_000))
    command.gc(store=store.root, run=[second.id])
    assert store.runs() == []


def test_old_marks_of_killed_runs_are_removed_and_nothing_else(store: Store) -> None:
    killed, kept = (store.write_run(RunManifest(suites=[name], trials=[])) for name in "ab")
    subprocess.run([sys.executable, "-c", KILLED, str(store.root), killed.id], check=False)
    (mark,) = (store.root / "running").iterdir()
    notes = mark.with_name("notes.txt")
    notes.write_text("by the user")
    with marked(store, kept.id):
        suspended = next(path for path in mark.parent.iterdir() if path.name.startswith(kept.id))
        for path in (mark, notes, suspended):
            os.utime(path, (time.time() - 90_000, time.time() - 90_000))
        command.gc(store=store.root)
        assert {*mark.parent.iterdir()} == {notes, suspended}

"""Stores that two drivers share, that are full, read-only or damaged: named, made again or refused, never served."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.store import Store
from tests.faults._bench import Driver, bench, board, finished, results, verified

Start = Callable[..., Driver]
Undisturbed = tuple[str, dict[str, bytes]]


def again(suite: Path, store: Path) -> str:
    """The same run once more, in this process; what it printed."""
    code, out, err = bench("run", "--suite", suite, "--store", store, "--device", "cpu", "--executor", "serial")
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def run(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished run."""
    store = tmp_path_factory.mktemp("run") / "store"
    again(suite, store)
    return store


@pytest.fixture
def store(run: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    shutil.copytree(run, tmp_path / "store")
    return tmp_path / "store"


def first(store: Path, kind: str) -> dict:
    return next(record for record in Store(store).records() if record["stage"] == kind)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_two_drivers_on_one_store(suite: Path, tmp_path: Path, drivers: Start, undisturbed: Undisturbed) -> None:
    expected, records = undisturbed
    store = tmp_path / "store"
    pair = drivers(suite, store), drivers(suite, store, executor="serial")
    assert [driver.finish() for driver in pair] == [0, 0], pair[0].err + pair[1].err
    assert results(finished(store)) == results(records)
    assert board(store) == expected
    assert [path for path in store.rglob("*") if path.name.startswith(".")] == []
    assert not (store / "damaged").exists()
    verified(store)


def test_no_damaged_artifact_is_served_and_all_come_back(suite: Path, store: Path, undisturbed: Undisturbed) -> None:
    """One of every kind: a flipped bit in some, a lost end in the others."""
    held, trusted = Store(store), finished(store)
    kinds = ("load", "split", "train", "prepare", "implant", "encode", "stamp", "defend")
    hurt = {}
    for number, kind in enumerate(kinds):
        hurt[kind] = key = first(store, kind)["key"]
        (flip if number % 2 else truncate)(held.artifact_path(key))
    code, out, _ = bench("verify", "--store", store)
    assert code == 1
    for kind in ("load", "split", "implant", "encode", "stamp", "defend"):  # what trials read; models are not
        assert f"({hurt[kind][:8]}) is damaged or gone" in out
    code, _, err = bench("report", "--store", store, "--out", store / "report.html")
    assert code == 2
    assert "is damaged: `python -m bench verify --set-aside`" in err
    assert bench("verify", "--store", store, "--set-aside")[0] == 1
    again(suite, store)
    assert all(held.intact(record) for record in held.records())
    assert results(finished(store)) == results(trusted)
    assert {path.name for path in (store / "damaged").glob("*.safetensors")} == {
        f"{key}.safetensors" for key in hurt.values()
    }
    assert board(store) == undisturbed[0]
    verified(store)


def test_no_damaged_record_is_served_and_all_come_back(suite: Path, store: Path, undisturbed: Undisturbed) -> None:
    """Torn, empty, of another schema, another's, or without a status that anyone knows."""
    trials = sorted((store / "records").glob("*.json"), key=lambda path: json.loads(path.read_bytes())["stage"])
    measured = [path for path in trials if json.loads(path.read_bytes())["stage"] == "measure"]
    others = [path for path in trials if path not in measured]
    whole = [path.read_bytes() for path in measured]
    assert len(measured) == 4
    measured[0].write_bytes(whole[0][: len(whole[0]) // 2])
    measured[1].write_bytes(whole[1].replace(b'"schema": 1', b'"schema": 2'))
    measured[2].write_bytes(whole[3])
    measured[3].write_bytes(whole[3].replace(b'"status": "ok"', b'"status": "oj"'))
    others[0].write_bytes(b"")
    others[1].write_bytes(others[1].read_bytes()[:-30])
    before = finished_names(store)
    shown = board(store)
    assert not any(key.stem in shown for key in measured)
    assert "0/1" in shown
    out = again(suite, store)
    assert "4 ok" in out
    assert before < finished_names(store)
    assert board(store) == undisturbed[0]
    assert len(list((store / "damaged").glob("*.json"))) >= 4
    verified(store)


def finished_names(store: Path) -> set[str]:
    """Keys of the records that a reader gets."""
    return {path.stem for path in (store / "records").glob("*.json") if Store(store).record(path.stem)}


def test_a_number_that_was_changed_comes_back(suite: Path, store: Path, undisturbed: Undisturbed) -> None:
    """Valid JSON, so that only computing it again can tell."""
    record = first(store, "measure")
    record["metrics"]["map"] += 0.1
    Store(store).write_record(record)
    assert bench("verify", "--store", store, "--set-aside")[0] == 1
    again(suite, store)
    assert board(store) == undisturbed[0]
    verified(store)


def test_a_read_only_store_can_be_read_and_serves_nothing_damaged(
    run: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    place = tmp_path / "mount"
    with tmpfs(place, "size=16m"):
        store = place / "store"
        shutil.copytree(run, store)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert board(store) == undisturbed[0]
        verified(store)
        for command in (("rescore",), ("verify", "--set-aside")):
            code, _, err = bench(*command, "--store", store)
            assert code == 2
            assert "read-only" in err
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        path = store / "records" / f"{first(store, 'measure')['key']}.json"
        path.write_bytes(path.read_bytes()[:50])
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "0/1" in board(store)
        assert path.exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_under_ray(suite: Path, tmp_path: Path, drivers: Start, undisturbed: Undisturbed) -> None:
    """test_bad_input.py has the same without workers."""
    place = tmp_path / "mount"
    with tmpfs(place, "size=700k"):
        store = place / "store"
        driver = drivers(suite, store)
        assert driver.finish() == 2, driver.err
        errors = [line for line in driver.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "disk is full" in errors[0]
        kept = finished(store)
        assert kept
        driver.close()
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        driver = drivers(suite, store)
        assert driver.finish() == 0, driver.err
        assert {key: finished(store)[key] for key in kept} == kept
        assert board(store) == undisturbed[0]
        verified(store)
        driver.close()

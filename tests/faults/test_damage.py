"""Stores that two drivers share, that are full, read-only or damaged: named, made again or refused, never served."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.artifacts.inputs import EncodeInputs, ImplantInputs, MeasureInputs
from bench.engine.record import Record
from bench.engine.store import Store, write_whole
from tests.faults._bench import SUITE, Driver, bench, board, finished, results, run, verified

pytestmark = pytest.mark.long

Start = Callable[..., Driver]
Undisturbed = tuple[str, dict[str, bytes]]


def again(suite: Path, store: Path) -> str:
    """The same run once more; what it printed."""
    code, out, err = run(suite, store)
    assert code == 0, err
    return out


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A finished run that the test may damage."""
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def first(store: Path, kind: str) -> Record:
    return next(record for record in Store(store).records() if record.stage == kind)


def behind_an_attacked_and_repaired_trial(store: Store) -> dict[str, str]:
    """Keys by stage. The damage of a clean model that no damaged artifact was made with would stay unseen."""
    trials = (MeasureInputs.of(record.parents) for record in store.records() if record.stage == "measure")
    trial = next(inputs for inputs in trials if inputs.implant is not None and inputs.defense is not None)
    assert trial.implant is not None
    assert trial.defense is not None
    of_clean, of_implant = (store.record(key) for key in (trial.control.benign.key, trial.implant.key))
    assert of_clean is not None
    assert of_implant is not None
    trigger = ImplantInputs.of(of_implant.parents).trigger
    assert trigger is not None
    return {
        "load": trial.load.key,
        "split": trial.split.key,
        "train": EncodeInputs.of(of_clean.parents).model.key,
        "make_trigger": trigger.key,
        "implant": trial.implant.key,
        "encode": trial.control.benign.key,
        "encode_triggered": trial.measured.triggered.key,
        "defend": trial.defense.key,
    }


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


@pytest.mark.slow
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
    """One of every kind, all behind one trial: a flipped bit in some, a lost end in the others."""
    held, trusted = Store(store), finished(store)
    kinds = ("load", "split", "train", "make_trigger", "implant", "encode", "encode_triggered", "defend")
    hurt = behind_an_attacked_and_repaired_trial(held)
    for number, kind in enumerate(kinds):
        (flip if number % 2 else truncate)(held.artifact_path(hurt[kind]))
    code, out, _ = bench("verify", "--store", store)
    assert code == 1
    for kind in (
        "load",
        "split",
        "implant",
        "encode",
        "encode_triggered",
        "defend",
    ):  # what trials read; models are not
        assert f"({hurt[kind][:8]})" in out
    code, _, _ = bench("report", "--store", store, "--out", store / "report.html")
    assert code == 0, "a page says what it does without"
    page = (store / "report.html").read_text()
    assert "verify --set-aside" in page
    assert "No map" in page
    assert bench("verify", "--store", store, "--set-aside")[0] == 1
    again(suite, store)
    assert all(held.intact(record) for record in held.records())
    assert results(finished(store)) == results(trusted)
    assert {path.name for path in (store / "damaged").glob("*.safetensors")} == {
        f"{key}.safetensors" for key in hurt.values()
    }
    assert board(store) == undisturbed[0]
    verified(store)


def test_no_picture_is_drawn_from_a_flipped_artifact(store: Path) -> None:
    """It can be read, and only its checksum tells."""
    flip(Store(store).artifact_path(first(store, "implant").key))
    code, _, err = bench("show", "--gallery", store / "attacks.png", "--store", store)
    assert code == 2
    assert "verify --set-aside" in err
    assert not (store / "attacks.png").exists()


def test_no_damaged_record_is_served_and_all_come_back(suite: Path, store: Path, undisturbed: Undisturbed) -> None:
    """Torn, empty, of another schema, another's, or without a status that anyone knows."""
    trials = sorted((store / "records").glob("*.json"), key=lambda path: json.loads(path.read_bytes())["stage"])
    measured = [path for path in trials if json.loads(path.read_bytes())["stage"] == "measure"]
    others = [path for path in trials if path not in measured]
    whole = [path.read_bytes() for path in measured]
    assert len(measured) == 4
    measured[0].write_bytes(whole[0][: len(whole[0]) // 2])
    measured[1].write_bytes(whole[1].replace(b'"schema": 3', b'"schema": 2'))
    measured[2].write_bytes(whole[3])
    measured[3].write_bytes(whole[3].replace(b'"status": "ok"', b'"status": "oj"'))
    others[0].write_bytes(b"")
    others[1].write_bytes(others[1].read_bytes()[:-30])
    assert [(row["trials"], row["status"]) for row in without_result(store)] == [(4, "missing")]
    every = {path.stem for path in trials}
    assert readable(store) == every - {path.stem for path in (*measured, *others[:2])}
    out = again(suite, store)
    assert "4 ok" in out
    assert readable(store) == every
    assert board(store) == undisturbed[0]
    assert len(list((store / "damaged").glob("*.json"))) >= 4
    verified(store)


def without_result(store: Path) -> list[dict]:
    """The rows of the board of trials that have no result."""
    (lost,) = (shown for shown in json.loads(board(store)) if shown["title"] == "No result")
    return lost["rows"]


def readable(store: Path) -> set[str]:
    """Keys of the records that a reader gets."""
    return {path.stem for path in (store / "records").glob("*.json") if Store(store).record(path.stem)}


def test_a_number_that_was_changed_comes_back(suite: Path, store: Path, undisturbed: Undisturbed) -> None:
    """Valid JSON, so that only computing it again can tell."""
    record = first(store, "measure")
    record.metrics["map"] += 0.1
    Store(store).write_record(record)
    assert bench("verify", "--store", store, "--set-aside")[0] == 1
    again(suite, store)
    assert board(store) == undisturbed[0]
    verified(store)


def test_a_read_only_store_can_be_read_and_serves_nothing_damaged(
    whole: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    place = tmp_path / "mount"
    with tmpfs(place, "size=16m"):
        store = place / "store"
        shutil.copytree(whole, store)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert board(store) == undisturbed[0]
        verified(store)
        for command in (("rescore",), ("verify", "--set-aside")):
            code, _, err = bench(*command, "--store", store)
            assert code == 2
            assert "read-only" in err
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        path = store / "records" / f"{first(store, 'measure').key}.json"
        path.write_bytes(path.read_bytes()[:50])
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert [row["status"] for row in without_result(store)] == ["missing"]
        assert path.exists()


def test_what_killed_processes_leave_is_collected_when_it_is_old(store: Path) -> None:
    """Not while a run may still be at it."""
    (store / "running").mkdir(exist_ok=True)
    left = [
        store / "artifacts" / ".00000000000000cc.tmp",
        store / "records" / ".00000000000000dd.tmp",
        store / "running" / f"{Store(store).runs()[0].id}.1234.run",
    ]
    for path in left:
        path.write_text("half")
    before = finished(store)
    assert bench("gc", "--store", store)[0] == 0
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert bench("gc", "--store", store)[0] == 0
    assert not any(path.exists() for path in left)
    assert finished(store) == before
    verified(store)


def test_others_may_read_what_the_umask_lets_them(whole: Path) -> None:
    """A cluster's store has several users."""
    (whole.parent / "mine").touch()
    mine = (whole.parent / "mine").stat().st_mode
    assert {path.stat().st_mode for path in whole.rglob("*") if path.is_file()} == {mine}


def test_a_page_that_is_written_again_keeps_its_rights(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch(0o600)
    write_whole(page, b"new")
    assert page.read_bytes() == b"new"
    assert page.stat().st_mode & 0o777 == 0o600


def test_the_same_suite_twice_gives_the_same_records(suite: Path, tmp_path: Path, undisturbed: Undisturbed) -> None:
    again(suite, tmp_path / "twice")
    assert results(finished(tmp_path / "twice")) == results(undisturbed[1])
    assert board(tmp_path / "twice") == undisturbed[0]
    assert re.search(r"0\.[1-9]", undisturbed[0]), "boards of collapsed models would all be equal"


@pytest.mark.slow
def test_every_kind_of_defense_twice_by_both_executors(tmp_path: Path, drivers: Start) -> None:
    """Processes of their own: nothing that the first has computed can help the second."""
    suite = tmp_path / "kinds.toml"
    defenses = '"none", "strip", "spectral_signatures", { name = "neural_cleanse", steps = 10 }'
    suite.write_text(
        SUITE.replace('"none", { name = "fine_pruning", steps = 2 }', defenses).replace(
            '"badnets"', '"badnets", "wanet", "sig", "blend"'
        )
    )
    pair = [
        drivers(suite, tmp_path / name, executor=name) for name in ("serial", "ray")
    ]  # at once, and so in two different orders
    assert [driver.finish(500) for driver in pair] == [0, 0], pair[0].err + pair[1].err
    serial, ray = (tmp_path / "serial", tmp_path / "ray")
    assert results(finished(serial)) == results(finished(ray))
    assert board(serial) == board(ray)
    verified(serial)
    verified(ray)


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
        assert "disk" in errors[0]
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

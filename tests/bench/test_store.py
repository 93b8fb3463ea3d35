"""Atomic, checked, and never served when damaged."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from bench.api.errors import StoreError
from bench.engine.record import RunManifest
from bench.engine.store import Store
from tests.stores import changed, record

RECORD = record("a" * 32, "train", metrics={"map": 0.5})


def test_records_and_artifacts_come_back(store: Store) -> None:
    tensors = {"x": torch.arange(6.0).reshape(2, 3).T, "mask": torch.tensor([True, False])}
    artifact = store.write_artifact(RECORD.key, tensors, {"backdoored": True})
    store.write_record(changed(RECORD, artifact=artifact.as_json()))
    found = store.record(RECORD.key)
    assert found is not None
    assert store.intact(found)
    assert torch.equal(store.tensors(RECORD.key)["x"], tensors["x"])
    assert [found.key for found in store.records()] == [RECORD.key]
    header = store.artifact_path(RECORD.key).read_bytes()[:400]
    assert b'\\"backdoored\\":true' in header, "an implanted model must say so in its own file"


def test_a_flipped_bit_is_found_and_set_aside(store: Store) -> None:
    artifact = store.write_artifact(RECORD.key, {"x": torch.zeros(100)}, {})
    damaged = RECORD.model_copy(update={"artifact": artifact})
    path = store.artifact_path(RECORD.key)
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    assert not store.intact(damaged)
    assert not path.exists()
    assert (store.root / "damaged" / path.name).exists()


@pytest.mark.parametrize("content", [b"", b'{"schema": 3, "key": "aa', b"[]", b'{"schema": 99}', b"\xff\xfe"])
def test_a_torn_or_foreign_record_counts_as_absent(store: Store, content: bytes) -> None:
    path = store.root / "records" / f"{RECORD.key}.json"
    path.write_bytes(content)
    assert store.record(RECORD.key) is None
    assert path.read_bytes() == content, "reading changes nothing"
    assert store.commit(RECORD) == RECORD == store.record(RECORD.key)
    assert (store.root / "damaged" / path.name).read_bytes() == content


def test_nothing_temporary_is_left_when_writing_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk"):
        store.write_record(RECORD)
    assert store.record(RECORD.key) is None
    assert list((store.root / "records").iterdir()) == []


@pytest.mark.parametrize("name", ["\u6f22" * 300, "../" * 100 + "x" * 300, "\U0001f600" * 80, " "])
def test_every_name_of_a_suite_becomes_a_file(store: Store, name: str) -> None:
    run = store.write_run(RunManifest(suites=[name, name], trials=[]))
    (path,) = (store.root / "manifests").iterdir()
    assert len(os.fsencode(path.name)) <= 120
    assert store.runs() == [run]


def test_another_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "old"
    Store(root, create=True)
    (root / "store.json").write_text(json.dumps({"schema": 0}))
    with pytest.raises(StoreError, match="--store"):
        Store(root, create=True)
    assert json.loads((root / "store.json").read_text()) == {"schema": 0}


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        Store(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "store", create=True)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "store.json").write_text("{")
    with pytest.raises(StoreError, match=r"store\.json"):
        Store(tmp_path / "bad")


def test_the_latest_plan_comes_last(store: Store) -> None:
    store.write_run(RunManifest(suites=["b"], trials=[]))
    store.write_run(RunManifest(suites=["a"], trials=[]))
    assert [manifest.suites for manifest in store.runs()] == [["b"], ["a"]]


def test_the_latest_plan_comes_last_whatever_the_clock_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e12)
    for name in ("b", "a", "c"):
        store.write_run(RunManifest(suites=[name], trials=[]))
    assert [manifest.suites for manifest in store.runs()] == [["b"], ["a"], ["c"]]


def test_a_file_is_replaced_and_never_written_to(store: Store) -> None:
    """Who has the old one open, or is killed while writing the new one, leaves a whole file."""
    store.write_artifact(RECORD.key, {"x": torch.zeros(1000)}, {})
    with store.artifact_path(RECORD.key).open("rb") as old:
        before = old.read()
        store.write_artifact(RECORD.key, {"x": torch.ones(1000)}, {})
        old.seek(0)
        assert old.read() == before
    assert store.artifact_path(RECORD.key).read_bytes() != before


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Readers of artifacts take text only, so that each stage would fail."""
    with pytest.raises(StoreError, match="not UTF-8"):
        Store(tmp_path / "st\udcff", create=True)

"""A published run: what is in it, how it is read, and what its verification finds."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
import typer
from safetensors.torch import load

import reports
from bench.api.errors import DataCorruptError, StoreError, UserError
from bench.cli import bundles as command
from bench.cli import verify as verifying
from bench.config import suite as suites
from bench.engine.bundle import (
    EVIDENCE,
    INDEX,
    MANIFEST,
    RECORDS,
    Bundle,
    Standing,
    checksums_of,
    packed,
    tensors_of,
)
from bench.engine.collection import Collection, add, entries, opened
from bench.engine.publish import publish
from bench.engine.recompute import Verifier
from bench.engine.store import Store
from bench.graph import planner as planning
from reports import frame
from tests.bench.conftest import TINY, finish
from tests.bundles import FORGED, Forger, committed
from tests.stores import changed, write_run

pytestmark = pytest.mark.long

CHANGES = [
    'datasets=[{ name = "digits", train = 150, query = 40, database = 150 }]',
    'backbones=[{ name = "convnet", width = 8 }]',
    "defenses=none,spectral_signatures,strip,median",
    "training.epochs=10",  # a clean model that learns nothing counts as collapsed
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store of a small run, and its bundles with and without evidence."""
    root = tmp_path_factory.mktemp("published")
    (root / "tiny.toml").write_text(TINY)
    plan = planning.plan([suites.load(str(root / "tiny.toml"), changes=CHANGES)], data=None, device="cpu")
    store = Store(root / "runs", create=True)
    finish(plan, store)
    write_run(committed(store), plan)
    for name, evidence in (("evidence.zip", True), ("plain.zip", False)):
        (root / name).write_bytes(publish(store, store.runs()[0], evidence=evidence).content)
    return root


@pytest.fixture
def evidence(folder):
    return folder / "evidence.zip"


def members(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def problems(path: Path) -> list[str]:
    bundle = Bundle(path)
    verifier = Verifier(bundle)
    records = verifying.verified(bundle, bundle.runs(), verifier)[1]
    return [problem for _, found in records for problem in found]


def test_equal_stores_give_equal_bytes(folder, evidence, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    for record in list(copy.records()):
        copy.write_record(changed(record, cost={"seconds": record.cost.seconds, "started": 1.0, "host": "elsewhere"}))
    assert publish(copy, copy.runs()[0], evidence=True).content == evidence.read_bytes()


def test_a_bundle_holds_neither_images_nor_weights_and_says_nothing_of_its_author(folder, evidence):
    held = load(gzip.decompress(members(evidence)[EVIDENCE]))
    names = {name.partition("/")[2] for name in held}
    assert names >= {"labels", "query", "database", "train", "mask", "stealth", "positions", "codes", "scores", "keep"}
    assert not [name for name in names if re.match(r"model\.|trigger\.|state\.|.*images|gallery", name)]
    assert max(value.dim() for value in held.values()) == 2
    store = Store(folder / "runs")
    hosts = {record.cost.host for record in store.records()}
    for path in (evidence, folder / "plain.zip"):
        files = members(path)
        text = gzip.decompress(files[RECORDS]).decode() + files[MANIFEST].decode()
        assert not [host for host in hosts if f'"{host}"' in text]
        assert str(folder) not in text
        lines = [json.loads(line) for line in gzip.decompress(files[RECORDS]).splitlines()]
        assert lines == sorted(lines, key=lambda one: (one["stage"], one["key"]))
        assert {one["key"] for one in lines} == {record.key for record in store.records()}
        assert not any(one["log"] or one["cost"]["started"] or one["cost"]["host"] for one in lines)


def test_absolute_paths_become_their_last_parts(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    one, other = [record for record in store.records() if record.stage == "measure"][:2]
    path = {"name": "x", "params": {"path": "/home/ann/models/a", "sum": "1/2/3", "url": "https://x.org/a/b"}}
    store.write_record(
        changed(one, spec={**one.spec, "note": path, "words": "see '/home/ann/b.csv', C:\\Users\\ann\\c",
                           "others": "file:///home/ann/x -I/home/ann/x ../../home/ann/x ~ann/x ~/x"})
    )  # fmt: skip
    path = {"name": "x", "params": {"path": "/srv/other/a"}}
    store.write_record(changed(other, spec={**other.spec, "note": path}))
    files = dict(members_of(publish(store, store.runs()[0], evidence=False).content))
    specs = {line["key"]: line["spec"] for line in map(json.loads, gzip.decompress(files[RECORDS]).splitlines())}
    assert specs[one.key]["note"]["params"] == {"path": "models/a", "sum": "1/2/3", "url": "https://x.org/a/b"}
    assert specs[other.key]["note"]["params"]["path"] == "other/a"
    assert specs[one.key]["words"] == "see 'b.csv', c"
    assert specs[one.key]["others"] == "file://~/x -I~/x ../..~/x ~/x ~/x"


def members_of(content: bytes) -> list[tuple[str, bytes]]:
    from io import BytesIO

    with ZipFile(BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def test_every_number_follows_from_the_evidence_alone(evidence, tmp_path, monkeypatch, capsys):
    shutil.copy(evidence, tmp_path / "b.zip")
    monkeypatch.chdir(tmp_path)
    assert problems(tmp_path / "b.zip") == []
    verifying.verify(store=Path("b.zip"), strict=True)
    assert "8 of 8 trials agree" in capsys.readouterr().out


def test_what_was_not_shipped_is_not_damaged(folder, capsys):
    verifying.verify(store=folder / "plain.zip")
    assert "numbers are as recorded" in capsys.readouterr().out
    with pytest.raises(typer.Exit) as stop:
        verifying.verify(store=folder / "plain.zip", strict=True)
    assert stop.value.exit_code == 1


@pytest.mark.parametrize("how", FORGED)
def test_a_forger_who_writes_all_checksums_anew_is_found(evidence, tmp_path, how):
    change, said = FORGED[how]
    forger = Forger(evidence)
    change(forger)
    forger.reseal()
    path = forger.save(tmp_path / "forged.zip")
    assert any(said in problem for problem in problems(path))


def test_a_forged_bundle_is_not_merged(evidence, tmp_path, capsys):
    forger = Forger(evidence)
    FORGED["number changed"][0](forger)
    forger.reseal()
    path = forger.save(tmp_path / "forged.zip")
    with pytest.raises(typer.Exit) as stop:
        verifying.verify(store=path)
    assert stop.value.exit_code == 1
    assert "ask their author" in capsys.readouterr().out
    with pytest.raises(UserError, match="not merged"):
        command.merge(path, tmp_path / "others")
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("how", ["number changed", "metrics swapped", "keys swapped"])
def test_a_changed_record_under_the_old_checksums_is_refused_at_once(evidence, tmp_path, how):
    forger = Forger(evidence)
    FORGED[how][0](forger)
    with pytest.raises(DataCorruptError, match="changed since"):
        Bundle(forger.save(tmp_path / "forged.zip"))


def test_changed_codes_under_the_old_checksums_count_as_damaged(evidence, tmp_path):
    forger = Forger(evidence)
    FORGED["codes changed"][0](forger)
    assert any("damaged or missing" in problem for problem in problems(forger.save(tmp_path / "forged.zip")))


@pytest.mark.parametrize("name", [INDEX, MANIFEST, RECORDS, EVIDENCE])
def test_a_missing_file_is_named(evidence, tmp_path, name):
    forger = Forger(evidence)
    del forger.files[name]
    with pytest.raises(DataCorruptError, match=f"{re.escape(name)} is missing"):
        Bundle(forger.save(tmp_path / "forged.zip"))


def test_a_file_more_is_named(folder, evidence, tmp_path):
    forger = Forger(folder / "plain.zip")
    forger.files[EVIDENCE] = members(evidence)[EVIDENCE]
    with pytest.raises(DataCorruptError, match="not listed"):
        Bundle(forger.save(tmp_path / "forged.zip"))
    forger.files["sitecustomize.py"] = b"1"
    with pytest.raises(DataCorruptError, match=r"'sitecustomize\.py' is no file of a bundle"):
        Bundle(forger.save(tmp_path / "forged.zip"))


def test_what_a_bundle_without_evidence_cannot_show_is_said(folder, tmp_path):
    """A number that nobody can compute again is believed: that is what the status `reported` means."""
    forger = Forger(folder / "plain.zip")
    FORGED["number changed"][0](forger)
    forger.reseal()
    path = forger.save(tmp_path / "b.zip")
    assert problems(path) == []
    command.merge(path, tmp_path / "others")
    (bundle,) = Collection(tmp_path / "others").bundles.values()
    assert bundle.status is Standing.REPORTED


def test_tables_of_a_bundle_are_those_of_its_store(folder, evidence):
    mine = frame.read(opened(folder / "runs")).trials
    for path in (evidence, folder / "plain.zip"):
        theirs = frame.read(opened(path)).trials
        assert theirs["key"].tolist() == mine["key"].tolist()
        for name in ("t_map", "gain", "status", "code", "own_code", "machine", "attack", "seconds_defense"):
            assert theirs[name].equals(mine[name]), name
    unpacked = folder / "unpacked"
    with ZipFile(evidence) as archive:
        archive.extractall(unpacked)
    for kind in ("trials", "repairs"):
        assert reports.load(unpacked, kind).equals(reports.load(folder / "runs", kind))
    assert problems(unpacked) == []


def test_a_bundle_that_keeps_its_controls_to_itself_is_no_more_than_reported(evidence, tmp_path, capsys):
    forger = Forger(evidence)
    forger.each(lambda record: [record.get("metrics", {}).pop(name, None) for name in ("t_map_control", "gain")])
    forger.reseal()
    command.merge(forger.save(tmp_path / "b.zip"), tmp_path / "others")
    (bundle,) = Collection(tmp_path / "others").bundles.values()
    assert bundle.status is Standing.REPORTED
    assert "gain, t_map_control" in capsys.readouterr().out


def test_a_bundle_is_no_run_of_ones_own(evidence, tmp_path):
    with pytest.raises(UserError, match="not a store"):
        command.merge(evidence, tmp_path / "others", own=evidence)


def test_a_bundle_is_not_written_to(evidence):
    bundle = opened(evidence)
    record = next(bundle.records())
    for write in (bundle.check_writable, lambda: bundle.write_record(record),
                  lambda: bundle.write_artifact(record.key, {"x": torch.zeros(1)}, {}),
                  lambda: bundle.write_run(bundle.runs()[0])):  # fmt: skip
        with pytest.raises(StoreError, match="only be read"):
            write()
    for path in (evidence, Path("reference")):
        with pytest.raises(StoreError, match="only be read"):
            Store(path, create=True)


def test_code_that_is_in_no_commit_is_not_published(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    record = next(record for record in store.records() if record.stage == "train")
    store.write_record(changed(record, provenance={"git": {"commit": "ab" * 20, "dirty": True}}))
    with pytest.raises(StoreError, match=r"no commit when 1 of \d+ parts .*abababababab with changes"):
        publish(store, store.runs()[0], evidence=False)


def test_a_store_that_does_not_verify_is_not_published(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    record = next(record for record in store.records() if record.stage == "measure")
    store.write_record(changed(record, metrics={**record.as_json()["metrics"], "map": 0.123}))
    with pytest.raises(StoreError, match=r"does not verify \(map is 0.123"):
        command.publish(store=store.root, out=tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def run_again(folder: Path, tmp_path: Path) -> Path:
    """A store with the results of the run, as if it had been run again: in other times."""
    shutil.copytree(folder / "runs", tmp_path / "again")
    store = Store(tmp_path / "again")
    for record in list(store.records()):
        cost = record.as_json()["cost"]
        store.write_record(changed(record, cost={**cost, "seconds": cost["seconds"] + 0.1}))
    return store.root


def test_a_collection_keeps_bundles_apart_and_says_how_far_each_is_checked(folder, evidence, tmp_path, capsys):
    """Two people may have other results of equal keys."""
    others = tmp_path / "others"
    command.merge(folder / "plain.zip", others)
    command.merge(evidence, others)
    held = Collection(others)
    assert [bundle.status for bundle in held.bundles.values()] == [Standing.REPORTED, Standing.VERIFIED]
    assert len(held.runs()) == 2
    assert len(set(held.keys())) == 2 * len(Bundle(evidence).keys())
    latest = frame.read(held).trials
    assert latest["t_map"].tolist() == frame.read(opened(evidence)).trials["t_map"].tolist()
    assert "verified" in held.standing(held.runs()[-1])
    assert "reported" in held.standing(held.runs()[0])
    verifying.verify(store=others)
    assert "8 of 8 trials agree" in capsys.readouterr().out
    own = run_again(folder, tmp_path)
    for made, status in ((folder / "runs", Standing.VERIFIED), (own, Standing.RERUN), (None, Standing.RERUN)):
        command.merge(evidence, others, own=made)  # without an own run, merging again takes nothing back
        assert [bundle.status for bundle in Collection(others).bundles.values()] == [Standing.REPORTED, status]
    assert "confirms nothing" in capsys.readouterr().out, "the store that the bundle was made from"


def test_bundles_that_are_merged_at_once_are_all_kept(folder, evidence, tmp_path):
    bundles, others = [Bundle(folder / "plain.zip"), Bundle(evidence)], tmp_path / "others"
    for _ in range(5):
        with ThreadPoolExecutor() as pool:
            made = list(pool.map(lambda one: add(one, others, Standing.REPORTED), bundles))
        assert {entry.file for entry in made} == {entry.file for entry in entries(others).bundles}
        shutil.rmtree(others)


def test_a_collection_does_not_have_the_name_of_the_shipped_one(evidence, tmp_path, monkeypatch):
    """No command would read it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="this package ships"):
        command.merge(evidence, Path("reference"))
    assert not Path("reference").exists()


def test_an_own_run_that_differs_makes_no_rerun(folder, evidence, tmp_path):
    store = Store(run_again(folder, tmp_path))
    for record in list(store.records()):
        if record.stage == "measure":
            store.write_record(changed(record, metrics={**record.as_json()["metrics"], "map": 0.0}))
    command.merge(evidence, tmp_path / "others", own=store.root)
    (bundle,) = Collection(tmp_path / "others").bundles.values()
    assert bundle.status is Standing.VERIFIED


def test_a_bundle_of_a_collection_that_was_replaced_is_refused(folder, evidence, tmp_path):
    name = add(Bundle(evidence), tmp_path / "others", Standing.VERIFIED).file
    shutil.copy(folder / "plain.zip", tmp_path / "others" / name)
    with pytest.raises(DataCorruptError, match="not the one that was merged"):
        Collection(tmp_path / "others")
    with pytest.raises(StoreError, match="no collection"):
        add(Bundle(evidence), folder / "runs", Standing.VERIFIED)


def test_the_checksum_of_a_tensor_is_of_its_type_shape_and_bytes():
    from hashlib import sha256

    from safetensors.torch import save

    content = save({"ab/a": torch.tensor([[1, 2]], dtype=torch.int16), "ab/b": torch.tensor([True])})
    assert checksums_of(tensors_of(content)["ab"]) == {
        "a": sha256(b'["I16",[1,2]]' + b"\x01\x00\x02\x00").hexdigest(),
        "b": sha256(b'["BOOL",[1]]' + b"\x01").hexdigest(),
    }


def test_the_layout_of_a_bundle(evidence):
    files = members(evidence)
    assert {INDEX, MANIFEST, RECORDS} < {*files}
    assert [*files] == sorted(files)
    assert packed(files) == evidence.read_bytes()
    with ZipFile(evidence) as archive:
        assert {about.date_time for about in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_bundles_of_this_package_verify():
    """A reader compares with them: `compare reference runs`."""
    held = opened(Path("reference"))
    for run in held.runs():
        with_evidence = run.suites[0] in {"quick", "cifar10_small"}  # for others there is no room
        assert held.status_of(run) in (["verified", "rerun"] if with_evidence else ["reported"])
        verifier = Verifier(held)
        done = [trial for trial in run.trials if trial.key and held.record(trial.key).ok]
        assert len(done) == len(run.trials)
        for trial in done[::8]:
            assert verifier.problems(held.record(trial.key), [trial]) == []
    folder = next(iter(held.bundles.values())).root.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6
    others = [path.name for path in folder.iterdir() if path.suffix not in {".zip", ".json", ".jsonl"}]
    assert others == []

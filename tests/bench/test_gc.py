"""What `gc` removes: only what no run needs, nothing that is not understood, and results only when they are named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.api.errors import StoreError, UserError
from bench.cli import runs as command
from bench.cli.app import main
from bench.engine import gc
from bench.engine.record import RunManifest, encoded
from bench.engine.running import RESCORE, marked
from bench.engine.runs import chosen
from bench.engine.store import Manifests, Store
from bench.graph.plan import Plan
from tests.bench.conftest import TINY, finish
from tests.stores import planned, record


def tree(store: Store) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file."""
    files = [path for path in store.root.rglob("*") if path.is_file()]
    return {path.relative_to(store.root): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two runs of several stages, and a record that neither needs."""
    store = Store(tmp_path_factory.mktemp("gc") / "store", create=True)
    for key, parent in {"a": None, "b": "a", "c": "b", "d": "c", "e": "b", "f": "e"}.items():
        artifact = store.write_artifact(key * 32, {"x": torch.arange(4)}, {})
        parents = {} if parent is None else {"x": parent * 32}
        store.write_record(record(key * 32, parents=parents, artifact=artifact.as_json()))
    for number, stages in ((0, "abcd"), (1, "abef")):
        keys = [letter * 32 for letter in stages]
        trials = [planned(keys[-1], {"seed": number})]
        store.write_run(RunManifest(suites=[f"s{number}"], trials=trials, stages=keys))
    store.write_record(record("1" * 32))
    return store


@pytest.fixture
def copied(finished: Store, tmp_path: Path) -> Store:
    shutil.copytree(finished.root, tmp_path / "copy")
    return Store(tmp_path / "copy")


def test_only_what_no_run_needs_goes(copied: Store) -> None:
    before = tree(copied)
    gone = gc.unneeded(copied).files
    assert [path.name for path in gone] == [f"{'1' * 32}.json"]
    assert tree(copied) == before, "asking changes nothing"
    gc.remove(copied, gone)
    assert before.keys() - tree(copied).keys() == {Path("records", f"{'1' * 32}.json")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_makes_gc_remove_what_an_intact_copy_needs(finished: Store, data: st.DataObject) -> None:
    needed = gc.needed(finished, finished.runs())
    files = sorted(path.relative_to(finished.root) for path in finished.root.rglob("*") if path.is_file())
    hurt = data.draw(st.sampled_from(files))
    how = data.draw(st.sampled_from(["delete", "truncate", "empty", "flip"]))
    place = finished.root.with_name("hurt")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(finished.root, place)
    path, content = place / hurt, bytearray((place / hurt).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if how == "delete":
        path.unlink()
    elif how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    else:
        path.write_bytes(content[: at if how == "truncate" else 0])
    held = {found.relative_to(place) for found in place.rglob("*") if found.is_file()}
    try:
        gone = gc.unneeded(Store(place)).files
    except StoreError:
        return
    gc.remove(Store(place), gone)
    lost = held - {found.relative_to(place) for found in place.rglob("*") if found.is_file()}
    if hurt.parts[0] == "manifests" and how == "delete":  # nothing is left that tells of this run
        return
    assert {found.stem for found in lost}.isdisjoint(needed), (hurt, how)
    assert not any(found.parts[0] in {"manifests", "damaged"} for found in lost)


@pytest.mark.parametrize("how", ["torn", "empty", "gone"])
def test_gc_refuses_where_what_runs_need_is_unknown(
    copied: Store, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (copied.root / "manifests").iterdir():
        match how:
            case "torn":
                path.write_bytes(path.read_bytes()[:-20])
            case "empty":
                path.write_bytes(b"")
            case "gone":
                path.unlink()
    before = tree(copied)
    for dry_run in (True, False):
        with pytest.raises(StoreError, match="nothing is removed"):
            command.gc(store=copied.root, dry_run=dry_run)
    assert tree(copied) == before


def test_a_dry_run_writes_nothing_even_where_records_are_damaged(copied: Store) -> None:
    path = copied.root / "records" / f"{'b' * 32}.json"
    path.write_bytes(path.read_bytes()[:50])
    before = tree(copied)
    command.gc(store=copied.root, dry_run=True, repaired=True, damaged=True)
    assert tree(copied) == before


def test_a_damaged_record_whose_inputs_no_manifest_lists_stops_gc(copied: Store) -> None:
    first = copied.runs()[0]
    for path in copied.manifests().paths[first.id]:
        path.unlink()
    copied.write_run(first.model_copy(update={"stages": []}))
    path = copied.root / "records" / f"{'c' * 32}.json"
    path.write_bytes(b"{")
    with pytest.raises(StoreError, match="nothing is removed: the record c"):
        gc.unneeded(copied)


def test_set_aside_files_go_only_when_asked_for(copied: Store) -> None:
    (copied.root / "damaged").mkdir()
    kept = copied.root / "damaged" / f"{'d' * 32}.json"
    kept.write_text("?")
    command.gc(store=copied.root)
    assert kept.exists()
    command.gc(store=copied.root, damaged=True)
    assert not kept.exists()


def test_a_run_that_is_named_goes_with_what_only_it_needs(copied: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = copied.runs()
    command.gc(store=copied.root, run=[first.id[:6]])
    assert "1 of 2 runs removed" in capsys.readouterr().out
    assert [run.id for run in copied.runs()] == [second.id]
    assert {found.key[0] for found in copied.records()} == set("abef"), "a and b belong to both"


def test_old_runs_go_by_age_and_by_number(copied: Store) -> None:
    second = copied.runs()[-1]
    command.gc(store=copied.root, older_than="1d")
    assert len(copied.runs()) == 2
    command.gc(store=copied.root, keep=1, dry_run=True)
    assert len(copied.runs()) == 2
    command.gc(store=copied.root, keep=1)
    assert [run.id for run in copied.runs()] == [second.id]
    command.gc(store=copied.root, older_than="0h")
    assert copied.runs() == []


@pytest.mark.parametrize(("options", "words"), [
    ({"run": ["latest"]}, "bench runs"), ({"run": ["zzzz"]}, "zzzz"), ({"older_than": "30"}, "30d"),
    ({"older_than": "x"}, "30d"), ({"older_than": "9" * 400 + "d"}, "30d"),
])  # fmt: skip
def test_gc_refuses_in_one_line(copied: Store, options: dict[str, object], words: str) -> None:
    before = tree(copied)
    with pytest.raises(UserError, match=words):
        command.gc(store=copied.root, **options)
    assert tree(copied) == before


def test_what_an_unfinished_run_has_made_is_kept(tmp_path: Path, tiny: Callable[..., Plan]) -> None:
    """Who runs out of disk is told to try gc, and that nothing finished is lost."""
    plan, store = tiny("attacks=none,badnets"), Store(tmp_path / "store", create=True)
    store.write_run(RunManifest(suites=["tiny"], trials=plan.trials, stages=list(plan.stages)))
    finish(plan, store)
    for found in store.records():
        if found.stage in {"measure", "encode_triggered"}:  # as a kill leaves it
            (store.root / "records" / f"{found.key}.json").unlink()
    made = {found.key for found in store.records()}
    lost = {f"{key}.safetensors" for key in plan.stages.keys() - made}
    assert {path.name for path in gc.unneeded(store).files} <= lost, "an artifact without a record has not happened"
    gc.remove(store, gc.unneeded(store).files)
    summary = finish(plan, store)
    assert summary.trials == {"ok": 2}
    assert summary.ran["ok"] == len(plan.stages) - len(made)


def test_files_that_are_not_the_stores_stay(copied: Store, tmp_path: Path) -> None:
    """Names that are no keys, fresh files of a run that goes on, and whatever lies behind a link."""
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / ("a" * 32 + ".json")).write_text("{}")
    (outside / ".00000000000000aa.tmp").write_text("mine")
    os.utime(outside / ".00000000000000aa.tmp", (0, 0))
    (copied.root / "damaged").symlink_to(outside)
    (copied.root / "records" / "notes.json").write_text("{}")
    (copied.root / "records" / ".00000000000000bb.tmp").write_text("half")
    assert [path.stem for path in gc.unneeded(copied, damaged=True).files] == ["1" * 32]


def test_old_files_of_a_user_who_keeps_a_store_among_them_stay(copied: Store) -> None:
    """As with `--store .` in a project."""
    mine = [
        copied.root / name for name in ("src/.draft.tmp", ".draft.tmp", "running/marathon.csv", "damaged/proof.pdf")
    ]
    mine.append(copied.root / "src" / ".00000000000000aa.tmp")
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    command.gc(store=copied.root, damaged=True)
    assert all(path.exists() for path in mine)


def test_nothing_is_removed_while_metrics_are_computed_again(copied: Store) -> None:
    """New records of `rescore` are in no manifest before its end."""
    with marked(copied, RESCORE), pytest.raises(StoreError, match="`rescore` is going on"):
        command.gc(store=copied.root)
    command.gc(store=copied.root)


def test_results_of_a_run_that_begins_meanwhile_stay(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a large store it takes long to find what is needed."""
    needed, new, begins = gc.needed, "e" * 32, False

    def slowly(store: Store, *arguments: object, **named: object) -> object:
        found = needed(store, *arguments, **named)
        store.commit(record(new))
        if begins:
            store.write_run(RunManifest(suites=["late"], trials=[], stages=["1" * 32]))
        return found

    monkeypatch.setattr(gc, "needed", slowly)
    assert [path.stem for path in gc.unneeded(copied).files] == ["1" * 32]
    begins = True
    with pytest.raises(StoreError, match="nothing is removed: a run began or ended meanwhile"):
        gc.unneeded(copied)


@pytest.mark.parametrize("folder", ["records", "artifacts", "manifests"])
def test_nothing_is_removed_through_a_link_to_another_store(copied: Store, tmp_path: Path, folder: str) -> None:
    (copied.root / folder).rename(tmp_path / "theirs")
    (copied.root / folder).symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreError, match=f"'{copied.root / folder}' is a link"):
        gc.unneeded(copied)


def test_leftovers_of_killed_processes_go_when_they_are_a_day_old(copied: Store) -> None:
    (copied.root / "running").mkdir()
    left = [copied.root / "artifacts" / ".00000000000000cc.tmp", copied.root / "running" / "z.1234.run"]
    for path in left:
        path.write_text("half")
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert {path for path in gc.unneeded(copied).files if path.stem != "1" * 32} == {*left}


def doubled(store: Store, **changes: object) -> tuple[RunManifest, Path]:
    """The latest run, with a second file that holds it in another state, as a program that copies folders leaves it."""
    latest = store.runs()[-1]
    (path,) = store.manifests().paths[latest.id]
    copy = path.with_name(f"{path.stem}.sync-conflict.json")
    copy.write_bytes(encoded(latest.model_copy(update=changes)))
    return latest, copy


def test_a_copy_of_a_manifest_is_no_run_of_its_own(copied: Store, capsys: pytest.CaptureFixture[str]) -> None:
    latest, copy = doubled(copied)
    results = {key: (copied.root / "records" / f"{key}.json") for key in latest.stages}
    command.gc(store=copied.root, keep=2)
    assert len(copied.runs()) == 2
    command.gc(store=copied.root, keep=1)
    assert "1 of 2 runs removed" in capsys.readouterr().out
    assert [run.id for run in copied.runs()] == [latest.id]
    assert all(path.exists() for path in results.values())
    assert [run.id for run in chosen(copied, latest.id)] == [latest.id]
    command.gc(store=copied.root, run=[latest.id])
    assert not copy.exists(), "else the run would still be there"


@pytest.mark.parametrize("options", [{"keep": 1}, {"older_than": "30d"}, {}])
def test_differing_copies_of_a_manifest_stop_gc(copied: Store, options: dict[str, object]) -> None:
    """The older state of a run is older than the limit, and the run is not."""
    latest, copy = doubled(copied, started=1.0)
    before = tree(copied)
    with pytest.raises(StoreError, match=f"hold run {latest.id} with different contents. Remove all but one"):
        command.gc(store=copied.root, **options)
    assert tree(copied) == before
    assert chosen(copied, latest.id)[0].started == latest.started, "the latest state is shown"
    copy.unlink()
    command.gc(store=copied.root)


def test_a_run_that_ends_while_gc_chooses_stays(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is old when the manifests are read, and is then started again by a version that knows no mark of `gc`."""
    read, first = Store.manifests, copied.runs()[0]
    again: list[RunManifest] = []

    def late(store: Store) -> Manifests:
        found = read(store)
        if not again:
            again.append(first)
            store.write_run(first)
        return found

    monkeypatch.setattr(Store, "manifests", late)
    with pytest.raises(StoreError, match="nothing is removed: a run began or ended meanwhile"):
        command.gc(store=copied.root, older_than="0h")
    monkeypatch.undo()
    assert first.id in {run.id for run in copied.runs()}


def test_no_run_begins_while_gc_removes_files(
    copied: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It would take results that are gone a moment later."""
    suite, codes = tmp_path / "tiny.toml", []
    suite.write_text(TINY)
    words = ["run", "--suite", str(suite), "--store", str(copied.root), "--device", "cpu", "--set", "attacks=none"]
    remove = gc.remove

    def slowly(store: Store, paths: list[Path]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(words)
        codes.append(stop.value.code)
        with pytest.raises(StoreError, match="`gc` is removing files"):
            command.gc(store=copied.root)
        remove(store, paths)

    monkeypatch.setattr(gc, "remove", slowly)
    command.gc(store=copied.root, run=[copied.runs()[0].id])
    assert codes == [2]
    assert "`gc` is removing files" in " ".join(capsys.readouterr().err.split())
    assert not list((copied.root / "running").iterdir())


def test_gc_waits_for_the_manifest_of_a_run_that_has_just_begun(copied: Store) -> None:
    before = tree(copied)
    with marked(copied, "123456789abc"):
        for dry_run in (True, False):
            with pytest.raises(StoreError, match="123456789abc has just begun"):
                command.gc(store=copied.root, dry_run=dry_run)
    assert tree(copied) == before

"""Runs have an identity: which one a command means, which it leaves out, and what a store holds of each."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from bench.api.errors import UserError
from bench.cli import runs as command
from bench.cli.app import main
from bench.engine.record import RunManifest
from bench.engine.record_cache import RecordCache
from bench.engine.runs import ALL, LATEST, chosen, left_out, select, summaries
from bench.engine.store import Store
from tests.bench.conftest import TINY
from tests.stores import planned, record


def made(store: Store, suite: str, trials: int = 1, *, unfinished: int = 0, text: str = "") -> RunManifest:
    """A run whose trials are finished, but for some that failed."""
    keys = [f"{number:032x}" for number in range(trials)] + [f"{number:031x}f" for number in range(unfinished)]
    lines = [planned(key, {"dataset": suite, "seed": number}) for number, key in enumerate(keys)]
    for number, line in enumerate(lines):
        store.write_record(record(line.key, status="ok" if number < trials else "failed"))
    command = f"bench run --suite {suite}"
    return store.write_run(RunManifest(suites=[suite], command=command, trials=lines, texts={suite: text}))


def said(store: Store, run: str = LATEST, suite: str | None = None) -> str:
    return left_out(select(store, run, suite=suite), RecordCache(store))


def test_a_command_means_the_latest_a_named_one_or_all(store: Store) -> None:
    a, b = made(store, "a"), made(store, "b")
    assert chosen(store) == [b]
    assert chosen(store, ALL) == [a, b]
    assert chosen(store, a.id[:5]) == [a]
    assert chosen(store, LATEST, suite="a") == [a]
    with pytest.raises(UserError, match=b.id):
        chosen(store, "0000")
    with pytest.raises(UserError, match="did you mean 'b'"):
        chosen(store, suite="bb")


def test_the_order_of_runs_survives_copies_and_clocks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = made(store, "a")
    monkeypatch.setattr(time, "time", lambda: 5.0)  # the clock has stepped back
    b = made(store, "b")
    for path in (store.root / "manifests").iterdir():
        os.utime(path, ns=(1, 1) if "b-" in path.name else (2, 2))
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert [run.id for run in Store(tmp_path / "copy").runs()] == [a.id, b.id]


def test_the_same_command_again_is_the_same_run_and_the_latest(store: Store) -> None:
    a, b = made(store, "a"), made(store, "b")
    assert made(store, "a").id == a.id
    assert [run.id for run in store.runs()] == [b.id, a.id]


def test_a_smaller_run_hides_a_larger_one_only_with_a_line(store: Store) -> None:
    large = made(store, "large", 3)
    assert said(store) == ""
    made(store, "small")
    assert f"--run {large.id}" in said(store)
    assert said(store, ALL) == ""
    assert said(store, large.id) == ""


def test_results_count_and_not_plans(store: Store) -> None:
    """A run that failed hides one of the same size, and a larger one that has not finished hides nothing."""
    finished = made(store, "a", 3)
    failed = made(store, "a", 2, unfinished=4)
    assert f"This is run {failed.id} (a, 6 trials, 2 with a result). Run {finished.id} (a, 3 trials)" in said(store)
    assert said(store, finished.id) == ""


@pytest.mark.parametrize("run", [LATEST, ALL])
@pytest.mark.parametrize("key", ["", 'name = "other"'])
def test_a_suite_file_is_its_text_and_not_its_name(store: Store, tmp_path: Path, run: str, key: str) -> None:
    paths, runs = [tmp_path / "a" / "my.toml", tmp_path / "b" / "my.toml"], []
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(f"{key}\ndescription = '{number}'")
        runs.append(made(store, "other" if key else "my", number + 1, text=path.read_text()))
    for path, one in zip(paths, runs, strict=True):
        assert select(store, run, suite=str(path)).shown == [one]
        assert ("Left out: 1 run " in said(store, run, str(path))) == (run == ALL)
    assert select(store, ALL, suite="other" if key else "my").shown == runs
    assert select(store, runs[1].id, suite=str(paths[0])).shown == [runs[1]]
    assert "another text" in said(store, runs[1].id, str(paths[0]))


def test_a_suite_file_that_was_edited_shows_its_earlier_runs_with_a_line(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("bits = [8]  # now")
    run = made(store, "my", text="bits = [8]")
    assert select(store, suite=str(path)).shown == [run]
    assert f"ran another text than '{path}' has now" in said(store, suite=str(path))
    with pytest.raises(UserError, match="no suite file"):
        select(store, suite=str(tmp_path / "gone.toml"))


def test_a_run_of_two_files_with_one_name_keeps_both_texts_and_is_the_run_of_neither(tmp_path: Path) -> None:
    paths, texts, root = [tmp_path / "a.toml", tmp_path / "b.toml"], [], tmp_path / "store"
    for number, path in enumerate(paths):
        texts.append(f"# {number}" + TINY.replace(', "badnets"', ""))
        path.write_text(texts[-1])
    with pytest.raises(SystemExit):
        main(["run", *(f"--suite={path}" for path in paths), "--store", str(root), "--executor", "serial"])
    (run,) = Store(root).runs()
    assert all(text in run.texts["tiny"] for text in texts)
    assert all("another text" in said(Store(root), suite=str(path)) for path in paths)


def test_large_runs_are_not_read_as_a_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """To know that a run has more results than the 2 of this one, 3 are enough."""
    made(store, "large", 50)
    made(store, "small", 2)
    read: list[str] = []
    monkeypatch.setattr(store, "record", lambda key: read.append(key) or Store.record(store, key))
    assert "more results" in said(store)
    assert len(read) == 3


def test_a_manifest_that_cannot_be_read_is_left_out_and_named(store: Store) -> None:
    made(store, "a")
    torn = store.root / "manifests" / "torn.json"
    torn.write_text("{")
    assert "torn.json" in said(store)
    assert torn.read_text() == "{"


def test_a_store_whose_only_manifest_cannot_be_read_is_not_called_empty(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    made(store, "a")
    (path,) = (store.root / "manifests").iterdir()
    path.write_text("{")
    command.runs(store=store.root)
    printed = capsys.readouterr()
    assert "no run yet" not in printed.out
    assert path.name in "".join(printed.err.split("\n"))


def test_runs_are_listed_with_what_came_of_them(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made(store, "a", 2)
    lines = [planned("f" * 32, {"seed": 9}), planned("e" * 32, {"seed": 10})]
    store.write_record(record("f" * 32, status="failed", reason="no"))
    run = store.write_run(RunManifest(suites=["b"], command="bench run --suite b", trials=lines))
    assert [summary.size > 0 for summary in summaries(store, store.runs())] == [True, True]
    command.runs(store=store.root, format_="json")
    (table,) = json.loads(capsys.readouterr().out)
    rows = table["rows"]
    assert [row["suite"] for row in rows] == ["b", "a"]
    assert rows[0]["id"] == run.id
    assert [rows[0][name] for name in ("trials", "ok", "failed", "missing")] == ["2", "0", "1", "1"]
    assert rows[1]["ok"] == "2"
    assert rows[0]["command"] == "bench run --suite b"


def test_a_suite_that_was_edited_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The results of the first stay, through gc as well."""
    path, place = tmp_path / "tiny.toml", tmp_path / "store"

    def bench(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main([*words, "--store", str(place)])
        assert not caught.value.code
        return capsys.readouterr().out

    for bits in (12, 8):
        path.write_text(TINY.replace("[12]", f"[{bits}]").replace('["none", "badnets"]', '["none"]'))
        bench("run", "--suite", str(path), "--executor", "serial", "--device", "cpu")
    bench("gc")
    store = Store(place)
    first, second = store.runs()
    assert first.texts["tiny"] != second.texts["tiny"]
    assert first.provenance.packages["torch"]
    assert all(store.record(planned.key).ok for run in (first, second) for planned in run.trials)
    assert "12 bits" in bench("leaderboard", "--run", first.id, "--format", "json")
    for words in (["leaderboard"], ["report", "conventions"]):
        assert "8 bits" in bench(*words, "--suite", str(path), "--format", "json")
    path.write_text(first.texts["tiny"])
    for words in (["leaderboard"], ["report", "conventions"]):
        assert "12 bits" in bench(*words, "--suite", str(path), "--format", "json")
    assert "1 of 1 trials" in bench("verify", "--suite", str(path))

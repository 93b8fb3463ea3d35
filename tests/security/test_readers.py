"""Hostile stores crossed with all readers: each ends in time, with a result or one line, and never as a bug of ours."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.config import suite as suites
from bench.engine.record import RunManifest, encoded
from bench.engine.store import Store
from bench.graph import planner as planning
from tests.bench.conftest import finish
from tests.security.hostile import HOSTILE
from tests.security.readers import COMMANDS, READERS, Ended, Reading
from tests.stores import changed

pytestmark = pytest.mark.long

SUITE = """
name = "stranger"
description = "Everything that readers show."
[axes]
datasets = [{ name = "digits", train = 100, query = 40, trusted = 40, database = 200 }]
backbones = [{ name = "convnet", width = 4 }]
targets = [3]
bits = [12]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 1
[[blocks]]
[blocks.axes]
attacks = ["none", { name = "badnets", poisons = [4, 8, 16] }]
[[blocks]]
[blocks.axes]
attacks = ["none", { name = "badnets", poisons = 16 }]
defenses = ["strip", { name = "fine_pruning", steps = 0 }]
"""
LEARNT = {
    "map": 0.8,
    "map_clean": 0.9,
    "map_chance": 0.1,
    "map_change": -0.1,
    "collapsed": 0.0,
}  # so that boards show it


def honest(folder: Path) -> Path:
    """A store of a small run, with a sweep, an input detector and a repair."""
    (folder / "stranger.toml").write_text(SUITE)
    loaded = suites.load(str(folder / "stranger.toml"))
    plan, store = planning.plan([loaded], data=None, device="cpu"), Store(folder / "store", create=True)
    command = f"python -m bench run --suite {folder / 'stranger.toml'}"
    store.write_run(RunManifest(
        suites=["stranger"], descriptions={"stranger": loaded.description}, command=command, trials=plan.trials,
        stages=list(plan.stages),
    ))  # fmt: skip
    finish(plan, store)
    for planned in plan.trials:
        record = store.record(planned.key or "")
        assert record is not None
        assert record.ok, record.reason
        store.write_record(changed(record, metrics={**record.as_json()["metrics"], **LEARNT}))
    return store.root


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reading]:
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "work").mkdir()
    made = Reading(honest(folder), folder / "stranger.toml", folder / "work")
    yield made
    made.close()


SIGNS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\U000e0000-\U000e0fff]"
)
COLOURS = re.compile(r"\x1b\[[\d;]*m")
FEW = (  # of each kind; all take an hour
    "honest", "data: pipe", "names that end: control", "a run without trials", "metrics: huge", "its own parent",
)  # fmt: skip
assert set(FEW) <= set(HOSTILE)


def wrong(reader: str, ended: Ended) -> str:
    """What is wrong with the end of a reader; "" where nothing is."""
    if ended.code not in {0, 1, 2} or "Traceback" in ended.said or "bug of HashDoor" in ended.said:
        return f"code {ended.code}: {(ended.error or ended.said)[-1500:]}"
    if ended.changed:
        return f"it changed {ended.changed}"
    said = COLOURS.sub("", ended.said)
    if reader in COMMANDS and (ended.code == 2) != (len(re.findall(r"^error: ", said, re.MULTILINE)) == 1):
        return f"code {ended.code} and not one line: {said[-1500:]}"
    if sign := SIGNS.search(said):
        return f"{sign[0]!r} on the terminal"
    live = list(formulas(said)) if "csv" in reader and ended.code == 0 else []
    return f"a spreadsheet runs {live}" if live else ""


def formulas(text: str) -> Iterator[str]:
    """The cells of a CSV file that a spreadsheet would run."""
    csv.field_size_limit(10**9)
    for cell in (cell for row in csv.reader(io.StringIO(text)) for cell in row):
        first = unicodedata.normalize("NFKC", cell.strip()[:1])
        if first in {"=", "+", "@"} or (first == "-" and not re.fullmatch(r"-[\d.e+-]+", cell)):
            yield cell


@pytest.mark.parametrize("row", [pytest.param(row, marks=[] if row in FEW else pytest.mark.slow) for row in HOSTILE])
def test_no_reader_hangs_or_crashes_on_a_strangers_store(reading: Reading, row: str) -> None:
    """Each reader works or says why not, in time, with a documented exit code, and without a word that steers."""
    ends = {reader: reading(row, reader) for reader in READERS}
    found = {reader: text for reader, ended in ends.items() if (text := wrong(reader, ended))}
    assert not found, "\n".join(f"{reader}: {text}" for reader, text in found.items())
    if row == "honest":  # all of them read something
        # LEARNT is not measured, and a bundle holds no pictures
        altered = {
            "verify",
            "verify --set-aside",
            "publish",
            *(f"bundle: {word}" for word in ("verify", "merge", "gallery")),
        }
        codes = {reader: ended.code for reader, ended in ends.items() if reader not in altered}
        assert set(codes.values()) == {0}, codes


@pytest.mark.parametrize(("row", "shown"), [
    ("names that end: unseen", "<U+200B>"), ("names that end: look-alike", "<U+0430>"),
    ("names that end: tags", "<U+E0041>"),
])  # fmt: skip
def test_a_name_in_disguise_shows_what_it_is(reading: Reading, row: str, shown: str) -> None:
    for reader in ("leaderboard", "leaderboard csv", "leaderboard json", "compare", "show"):
        assert shown in reading(row, reader).said, reader


def test_a_run_after_one_of_the_year_9900_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    late = RunManifest(suites=["late"], trials=[], started=2.5e11)
    (store.root / "manifests" / "late.json").write_bytes(encoded(late))
    store.write_run(RunManifest(suites=["mine"], trials=[]))
    assert [run.suites for run in store.runs()] in ([["late"], ["mine"]], [["mine"], ["late"]])
    assert not store.manifests().unreadable

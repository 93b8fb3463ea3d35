"""The machine that a number comes from: equal keys on another instruction set are never mixed without a word."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.cli import verify as command
from bench.engine.machines import Machine, identity, machines
from bench.engine.provenance import arithmetic
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from reports import frame
from reports.board import Board
from reports.board_registry import BoardData, make_boards
from reports.compare import compare
from tests.bench.conftest import TINY

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SUITE = TINY.replace("epochs = 1", "epochs = 6").replace("width = 4", "width = 8")
OTHER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def bench(*words: str, **environment: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench", *words, "--executor", "serial"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def boards(store: Store, *, mixed: bool = False) -> list[Board]:
    return make_boards("leaderboard", BoardData(frame.read(store), RecordCache(store), mixed))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """One suite run here, under another instruction set, and begun there and ended here."""
    folder = tmp_path_factory.mktemp("machines")
    suite = folder / "tiny.toml"
    suite.write_text(SUITE)
    found = {name: folder / name for name in ("here", "there", "both")}
    for name, environment in (("here", {}), ("there", OTHER)):
        bench("run", "--suite", str(suite), "--store", str(found[name]), **environment)
    bench("run", "--suite", str(suite), "--only", "attack=none", "--store", str(found["both"]), **OTHER)
    bench("run", "--suite", str(suite), "--store", str(found["both"]))
    return {name: Store(path) for name, path in found.items()}


def test_the_digest_tells_instruction_sets_apart_and_processes_not() -> None:
    code = "from bench.engine.provenance import arithmetic; print(arithmetic())"
    digests = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, **environment},
        ).stdout.strip()
        for environment in ({}, {"OMP_NUM_THREADS": "1"}, OTHER, {"OPENBLAS_CORETYPE": "Nehalem"})
    ]  # fmt: skip
    blas = json.dumps(np.show_config(mode="dicts")).lower()
    assert digests[0] == digests[1] == arithmetic()
    assert len(set(digests)) == (3 if "openblas" in blas else 2)  # other libraries do not read the last variable


def test_keys_are_equal_and_machines_are_not(stores: dict[str, Store]) -> None:
    keys = [{record.key for record in stores[name].records()} for name in ("here", "there")]
    assert keys[0] == keys[1]
    trials = [frame.read(stores[name]).trials for name in ("here", "there")]
    assert set(trials[0]["machine"]).isdisjoint(trials[1]["machine"])
    assert {*trials[0]["machine_count"], *trials[1]["machine_count"]} == {1}
    assert "SSE41" in trials[1]["computed_on"].iloc[0]
    for name, part in zip(("here", "there"), trials, strict=True):
        assert part["computed_on"].iloc[0] in boards(stores[name])[0].caption


def test_a_store_begun_on_one_machine_and_ended_on_another_is_not_one_table(stores: dict[str, Store], capsys) -> None:
    results = frame.read(stores["both"])
    by_attack = dict(zip(results.trials["attack"], results.trials["machine_count"], strict=True))
    assert by_attack == {"none": 1, "badnets": 2}
    filled = [board.table["t-mAP"].notna().sum() for board in boards(stores["both"]) if "t-mAP" in board.table]
    assert filled == [1, 1], "one board for each machine"
    mixed = boards(stores["both"], mixed=True)
    assert any("Warning" in board.caption and "machine" in board.caption for board in mixed)
    command.verify(store=stores["both"].root)
    assert capsys.readouterr().out.count("SSE41") == 2


def test_compare_names_the_machine(stores: dict[str, Store]) -> None:
    a, b = stores["here"], stores["there"]
    facts = compare(frame.read(a), frame.read(b), a, b).boards[-1].table
    assert {"machine", "computed on"} <= set(facts["what"])


def test_results_of_all_runs_from_two_machines_stay_apart(stores: dict[str, Store], tmp_path: Path) -> None:
    """Two machines that wrote into one store: the records of one, and other seeds of the other."""
    joined = tmp_path / "joined"
    shutil.copytree(stores["here"].root, joined)
    suite = tmp_path / "tiny.toml"
    suite.write_text(SUITE)
    bench("run", "--suite", str(suite), "--set", "seeds=[1]", "--store", str(joined), **OTHER)
    trials = frame.read(Store(joined), run="all").trials
    assert trials.groupby("machine").size().to_dict() == dict.fromkeys(set(trials["machine"]), 2)
    assert len(set(trials["machine"])) == 2


def test_a_store_merged_from_a_half_run_and_another_machine_shows_no_number_of_both(
    stores: dict[str, Store], tmp_path: Path
) -> None:
    """`cp -rn`: equal names stay, so that the metrics of the other machine lie beside the codes of this one."""
    joined = tmp_path / "joined"
    shutil.copytree(stores["here"].root, joined)
    for record in stores["here"].records():
        if record.stage == "measure":
            theirs = stores["there"].root / "records" / f"{record.key}.json"
            shutil.copy(theirs, joined / "records")
    trials = frame.read(Store(joined)).trials
    assert set(trials["status"]) == {"missing"}
    assert all("replaced" in reason for reason in trials["reason"])
    suite = tmp_path / "tiny.toml"
    suite.write_text(SUITE)
    bench("run", "--suite", str(suite), "--store", str(joined))
    again, here = (frame.read(Store(root)).trials for root in (joined, stores["here"].root))
    assert again["t_map"].tolist() == here["t_map"].tolist()


def test_two_results_of_one_trial_are_said_to_be_two(stores: dict[str, Store], tmp_path: Path) -> None:
    """As of runs with one thread and with two: the number of threads is part of keys."""
    joined = tmp_path / "joined"
    shutil.copytree(stores["here"].root, joined)
    suite = tmp_path / "tiny.toml"
    suite.write_text(SUITE)
    bench("run", "--suite", str(suite), "--set", "resources.threads=2", "--store", str(joined))
    both = frame.read(Store(joined), run="all")
    changes, *_ = compare(frame.read(stores["here"]), both, stores["here"], Store(joined)).boards
    assert "in B, 2 trials have several results" in changes.caption
    data = BoardData(both, RecordCache(Store(joined)), mixed=True)
    assert all("2 trials have several results" in board.caption for board in make_boards("leaderboard", data)[:1])


def test_only_what_computes_floats_counts(stores: dict[str, Store]) -> None:
    records = RecordCache(stores["here"])
    measured = next(record for record in stores["here"].records() if record.stage == "measure")
    (one,) = machines(measured, records)
    assert (one.device, one.threads, one.precision) == ("cpu", 1, "float32")
    assert identity((one,)) == identity((Machine(**vars(one)),))
    path = stores["here"].root / "records" / f"{measured.key}.json"
    assert json.loads(path.read_text())["provenance"]["arithmetic"] == one.arithmetic

"""Numbers computed again from a store: equal where nothing was touched, named where something was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

import reports
from bench.api import registry
from bench.api.errors import StoreError, UserError
from bench.api.kinds import Access, DefenseKind
from bench.artifacts.inputs import EncodeInputs
from bench.cli import runs
from bench.cli import verify as command
from bench.cli.app import main
from bench.config import suite as suites
from bench.config.trial import PlannedTrial, Spec, Surrogate
from bench.engine.collection import opened
from bench.engine.recompute import Verifier, differences, rescore
from bench.engine.record import Record, RunManifest
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.engine.trial_labels import mislabelled, misplaced, untold
from bench.graph import planner as planning
from bench.graph.plan import Plan
from reports import frame, html_report
from tests.bench.conftest import TINY, edited, finish
from tests.reports.test_html_report import unpacked
from tests.stores import changed, spec, write_run


def ran(folder: Path, changes: list[str]) -> tuple[Plan, Store]:
    """The plan of a small suite with these changes, and the store in which it has been run."""
    (folder / "tiny.toml").write_text(TINY)
    plan = planning.plan([suites.load(str(folder / "tiny.toml"), changes=changes)], data=None, device="cpu")
    store = Store(folder / "store", create=True)
    finish(plan, store)
    write_run(store, plan)
    return plan, store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: plan and folder of the store. Filters keep masks, input detectors scores, purifications codes."""
    changes = ["defenses=none,spectral_signatures,strip,median", "training.epochs=2"]
    plan, store = ran(tmp_path_factory.mktemp("again"), changes)
    return plan, store.root


@pytest.fixture
def done(finished, tmp_path):
    """The run, in a store of the test's own."""
    plan, root = finished
    shutil.copytree(root, tmp_path / "store")
    return plan, Store(tmp_path / "store")


def of(plan, store, kind: str, **axes) -> Record:
    """A record of a kind on the path of the attacked, undefended trial (or of the axes given)."""
    wanted = {"attack": "badnets", "defense": "none", **axes}
    trial = next(c for c in plan.trials if all(c.trial.has(axis, value) for axis, value in wanted.items()))
    record = store.record(trial.key)
    return record if kind == "measure" else store.record(record.parents[kind])


def problems(plan, store, **axes) -> list[str]:
    return Verifier(store).problems(of(plan, store, "measure", **axes))


def verified(store: Store) -> Verifier:
    """The verifier after it has found nothing wrong with any trial of the store."""
    verifier = Verifier(store)
    assert [
        problem for record in store.records() if record.stage == "measure" for problem in verifier.problems(record)
    ] == []
    return verifier


@pytest.mark.long
def test_an_untouched_store_is_verified_and_measured_again_for_nothing(done):
    plan, store = done
    before = {record.key for record in store.records()}
    verifier = verified(store)
    assert verifier.newer == verifier.unknown == set()
    command.verify(store=store.root)
    command.rescore(store=store.root)
    assert {record.key for record in store.records()} == before
    assert [trial for trial, record in rescore(store, plan.trials) if record is not None] == plan.trials


def test_a_number_that_was_changed_is_named(done, capsys):
    plan, store = done
    record = of(plan, store, "measure")
    record.metrics["t_map"] += 1e-6
    store.write_record(record)
    (found,) = problems(plan, store)
    assert found.startswith("t_map ")
    with pytest.raises(typer.Exit) as stop:
        command.verify(store=store.root)
    assert stop.value.exit_code == 1
    out = capsys.readouterr().out
    assert f"{record.key[:8]} {record.label}: t_map" in out
    assert f"{len(plan.trials) - 1} of {len(plan.trials)}" in out


def test_a_metric_that_is_newer_than_a_trial_is_no_mismatch_and_is_named(done):
    plan, store = done
    record = of(plan, store, "measure")
    del record.metrics["anchor"]
    store.write_record(record)
    assert verified(store).newer == {"anchor"}
    command.verify(store=store.root)


@pytest.mark.parametrize("role", ["measured.benign", "implant", "load"])
def test_a_damaged_artifact_is_named(done, role):
    plan, store = done
    path = store.artifact_path(of(plan, store, role).key)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert any(f"artifact of '{role}'" in line and "damaged" in line for line in problems(plan, store))


def test_an_artifact_that_was_exchanged_with_its_record_is_named(done):
    """Exchanged for codes with a bit per class, whose mAP is 1: trained codes could have one mAP by chance."""
    plan, store = done
    codes, load, split = (of(plan, store, role) for role in ("measured.benign", "load", "split"))
    classes = store.tensors(load.key)["labels"].long().argmax(1)
    images = store.tensors(split.key)
    perfect = {
        part: torch.bitwise_left_shift(torch.tensor(1), classes[images[part]])[None] for part in ("query", "database")
    }
    artifact = store.write_artifact(codes.key, {**store.tensors(codes.key), **perfect}, {})
    store.write_record(codes.model_copy(update={"artifact": artifact}))
    found = problems(plan, store)
    assert any("'measured.benign'" in line and "damaged" not in line for line in found)
    (line,) = (line for line in found if line.startswith("map is "))
    assert line.endswith(" 1")


def test_a_poison_count_is_that_of_the_mask(done):
    plan, store = done
    record = of(plan, store, "implant")
    poisons = record.meta.field("poisons")
    store.write_record(changed(record, meta={**record.meta.as_json(), "poisons": poisons + 1}))
    (found,) = (line for line in problems(plan, store) if "mask" in line)
    assert [int(word.strip(",")) for word in found.split() if word.strip(",").isdigit()] == [poisons + 1, poisons]


OUTSIDE = '''
"""A metric of codes, one of a detector's scores, both with a control, and a board."""
from typing import Annotated
import numpy as np
from bench.metrics import DetectorScores, ModelCodes, metric
from hashing import ranking
from reports.board_registry import Board, BoardData, board

@metric("first_hit", title="P@1", section="Benign queries", unit="share", control=True,
        meaning="share of first results that are relevant")
def first_hit(codes: ModelCodes):
    return ranking.precision_at(codes.benign.total, codes.benign.relevant, 1).astype(np.float32).mean()

@metric("shift", title="shift", section="Input detection", control=True, low=-np.inf, high=np.inf,
        meaning="mean score of triggered queries minus mean score of benign ones")
def shift(scores: DetectorScores):
    return float(scores.triggered.mean() - scores.benign.mean()) if len(scores.triggered) else None

@board("first-hits", chapter="First results", help="P@1 of every attack")
def first_hits(data: BoardData, *, floor: Annotated[float, "Leave out attacks below it."] = 0.0) -> list[Board]:
    means = data.results.trials.groupby("attack", as_index=False)["first_hit"].mean()
    kept = means[means["first_hit"] >= floor].rename(columns={"first_hit": "P@1"})
    return [Board("First results", kept, "Means.", index=("attack",), metrics={"P@1": "first_hit"})]
'''
MEANING = "share of first results that are relevant"


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "hits.py"
    path.write_text(OUTSIDE)
    return path


def rows(capsys, *command) -> list[dict]:
    """The tables that a command prints as JSON, row after row."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, command), "--format", "json"])
    assert not stop.value.code
    return [row for table in json.loads(capsys.readouterr().out) for row in table["rows"]]


def test_all_runs_are_measured_again_and_keep_their_order(done, outside):
    plan, store = done
    store.write_run(RunManifest(suites=["small"], trials=plan.trials[:1], stages=list(plan.stages)))
    before, old = store.runs(), {trial.key for trial in plan.trials}
    registry.load_plugin(outside)
    command.rescore(store=store.root, run="all")
    first, second = (run for run in store.runs() if run.id not in {one.id for one in before})
    assert [first.suites, second.suites] == [one.suites for one in before]
    assert [len(first.trials), len(second.trials)] == [len(plan.trials), 1]
    assert all(old.isdisjoint(trial.key for trial in run.trials) for run in (first, second))


@pytest.mark.long
def test_a_metric_and_a_board_from_a_file_outside_are_found_in_every_place(done, outside, tmp_path, capsys):
    plan, store = done
    old = {record.key: record.cost for record in store.records()}
    for kind, name in (("metrics", "first_hit_control"), ("boards", "first-hits")):
        assert name in {row["name"] for row in rows(capsys, "list", kind, "--plugin", outside)}
    registry.load_plugin(outside)

    # measured without training, and controls on the clean model
    command.rescore(store=store.root)
    new = [record for record in store.records() if record.key not in old]
    assert {record.stage for record in new} == {"measure"}
    assert len(new) == len(plan.trials)
    assert all(store.record(key).cost == cost for key, cost in old.items())
    results = frame.read(store)
    measured, scores = results.trials, results.detectors
    assert measured["first_hit"].between(0, 1).all()
    plain = measured[measured["attack"] == "none"]
    assert (plain["first_hit"] == plain["first_hit_control"]).all(), "without an attack the model is the clean one"
    assert "shift" not in measured
    assert scores["shift"].notna().all()
    clean = scores[scores["attack"] == "none"]
    assert (clean["shift"] == clean["shift_control"]).all()

    # verified, also where older trials lack it
    command.verify(store=store.root)
    command.verify(store=store.root, run="all")
    assert verified(store).newer == {"first_hit", "first_hit_control", "shift", "shift_control"}

    # explained, shown and exported
    about = reports.columns()
    assert about.loc["first_hit", ["title", "unit", "meaning"]].tolist() == ["P@1", "share", MEANING]
    assert about.loc["first_hit_control", "meaning"].startswith("clean model")
    guarded = measured[(measured["defense"] == "strip") & (measured["attack"] == "badnets")].iloc[0]
    shown = rows(capsys, "show", guarded["key"], "--store", store.root)
    (number,) = (row for row in shown if row.get("metric") == "P@1")
    assert number["value"] == pytest.approx(guarded["first_hit"])
    assert any(row.get("shift") is not None for row in shown)
    printed = rows(capsys, "report", "first-hits", "--store", store.root, "--floor", 0, "--plugin", outside)
    assert {row["attack"]: row["P@1"] for row in printed}["none"] == pytest.approx(plain["first_hit"].mean())
    assert rows(capsys, "report", "first-hits", "--store", store.root, "--floor", 2) == []
    (board,) = reports.tables(store.root, "first-hits", floor=0.0)
    assert board.table["P@1"].notna().all()

    # on the page: a chapter, a column with its meaning, a number of each trial
    html_report.draw(store, tmp_path / "page.html", results)
    text = (tmp_path / "page.html").read_text()
    page = unpacked(text)
    assert 'id="first-results"' in text
    (column,) = (c for b in page["boards"] if b["title"] == "First results" for c in b["columns"] if c["name"] == "P@1")
    assert column["about"] == MEANING
    assert column["shown"][0] == f"{board.table['P@1'].iloc[0]:.3f}"
    assert ["P@1", "share", MEANING] in page["trials"]["metrics"]


def test_a_metric_that_breaks_leaves_the_run_as_it_was(done, tmp_path, capsys):
    plan, store = done
    before = store.runs()
    (tmp_path / "broken.py").write_text(OUTSIDE.replace("    return ranking", "    1 / 0\n    return ranking"))
    with pytest.raises(typer.Exit) as stop:
        command.rescore(store=store.root, plugin=[tmp_path / "broken.py"])
    assert stop.value.exit_code == 1
    printed = capsys.readouterr().out
    assert f"{len(plan.trials)} could not be measured and keep what they have" in printed
    assert "ZeroDivisionError" in printed
    assert store.runs() == before


def test_metrics_of_a_plugin_that_is_not_loaded_are_left_as_they_are(done, outside, capsys):
    _, store = done
    with registry.plugins_restored():
        command.rescore(store=store.root, plugin=[outside])
    command.verify(store=store.root)
    assert verified(store).unknown == {"first_hit", "first_hit_control", "shift", "shift_control"}
    assert "first_hit" not in frame.read(store).trials


def test_differences_name_the_place_and_forgive_rounding():
    one = {"a": 1.0, "b": {"c": None, "d": 2}, "e": "x"}
    assert list(differences(one, json.loads(json.dumps(one)))) == []
    assert list(differences(one, {**one, "a": 1.0 + 1e-12})) == []
    found = list(differences(one, {"a": 1.1, "b": {"c": 0.5, "d": 2}, "e": "y", "f": 3}))
    assert [line.split()[0] for line in found] == ["a", "b.c", "e"]
    assert all(value in found[1] for value in ("None", "0.5"))


def test_damaged_codes_are_not_measured_under_a_new_metric(done, tmp_path):
    """They still parse, and the new records would stand beside the checksums of the sound ones."""
    plan, store = done
    path = store.artifact_path(of(plan, store, "measured.benign").key)
    content = bytearray(path.read_bytes())
    content[content.index(b"}}") + 16 & ~7] ^= 1  # a bit of the first code
    path.write_bytes(content)
    with (
        edited("bench.metrics", tmp_path / "edited"),
        pytest.raises(StoreError, match=r"'measured.benign'.*--set-aside"),
    ):
        command.rescore(store=store.root)


def test_gc_keeps_what_data_filters_removed_which_verification_needs(tmp_path):
    _, store = ran(tmp_path, ["defenses=spectral_signatures", "attacks=badnets"])
    runs.gc(store=store.root, repaired=True)
    verified(store)


def test_repaired_models_that_gc_dropped_are_not_missed(tmp_path):
    plan, store = ran(tmp_path, ["defenses=fine_pruning", "attacks=none"])
    runs.gc(store=store.root, repaired=True)
    key = of(plan, store, "defense", attack="none", defense=plan.trials[0].trial.defense.label).key
    assert not store.artifact_path(key).exists()
    verified(store)


@pytest.mark.parametrize("error", [MemoryError("18 GB"), OSError(errno.EIO, "Input/output error")])
def test_a_fault_of_the_machine_is_no_fault_of_the_record(done, monkeypatch, error):
    """`--set-aside` would remove good records."""
    _plan, store = done
    before = {path.name for path in (store.root / "records").iterdir()}

    def broken(*_):
        raise error

    monkeypatch.setattr("bench.engine.recompute.measure.run", broken)
    with pytest.raises(UserError, match="this machine cannot"):
        command.verify(store=store.root, set_aside=True)
    assert {path.name for path in (store.root / "records").iterdir()} == before


@pytest.mark.long
def test_numba_that_cannot_start_is_no_fault_of_the_record(done):
    _plan, store = done
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "verify", "--set-aside", "--store", str(store.root)],
        capture_output=True, text=True, check=False, env={**os.environ, "NUMBA_NUM_THREADS": "0"},
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: numba cannot start")
    assert not (store.root / "damaged").exists()


def test_a_manifest_that_names_other_trials_than_were_measured_is_named(done, capsys):
    """Its checksum is right, since anyone can make one."""
    plan, store = done
    assert not [said for trial in plan.trials for said in Verifier(store).problems(store.record(trial.key), [trial])]
    first = plan.trials[0]
    for change, word in (
        ({"bits": 64}, "bits 64"), ({"seed": 7}, "seed 7"), ({"target": ("9",)}, "target ['9']"),
    ):  # fmt: skip
        (run,) = store.runs()
        for path in (store.root / "manifests").iterdir():
            path.unlink()
        edited = replace(first, trial=replace(first.trial, **change))
        store.write_run(run.model_copy(update={"trials": [edited, *plan.trials[1:]]}))
        with pytest.raises(typer.Exit):
            command.verify(store=store.root)
        out = capsys.readouterr().out
        assert f"the run calls its {word}" in out
    purified = of(plan, store, "measure", defense="median")
    other = replace(first, trial=replace(first.trial, attack=spec("badnets"), defense=spec("jpeg")), key=purified.key)
    assert any(
        "calls its defense jpeg, measured was {'name': 'median'" in line
        for line in Verifier(store).problems(purified, [other])
    )
    swapped = replace(first, key=plan.trials[-1].key)
    said = Verifier(store).problems(store.record(swapped.key), [swapped])
    assert any("measured was badnets" in line or "'name': 'badnets'" in line for line in said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"access": Access.CLEAN_LABEL}, "the run says access clean-label, the component says dirty-label"),
        ({"access": None}, "the run says access None"),
        ({"defense_kind": DefenseKind.REPAIR}, "the run says defense_kind repair, the component says none"),
        ({"targeted": False}, "the run says targeted False"),
        ({"seed_dependent": False}, "the run says seed_dependent False"),
    ],
)
def test_what_a_published_run_says_of_components_is_compared_with_them(change, said):
    planned = next(
        one
        for run in opened(Path("reference")).runs()
        for one in run.trials
        if (one.trial.attack.name, one.trial.defense.name) == ("badnets", "none")
    )
    found = list(mislabelled(replace(planned, **change)))
    assert (found == []) if not said else (len(found) == 1 and said in found[0])


def published(attack: str) -> tuple[PlannedTrial, Record, RecordCache]:
    """An undefended trial of the shipped results, its measurement, and records that a test may change."""
    store = opened(Path("reference"))
    trials = (one for run in store.runs() for one in run.trials)
    planned = next(one for one in trials if (one.trial.attack.name, one.trial.defense.name) == (attack, "none"))
    records = RecordCache(store)
    record = records.record(planned.key or "")
    assert record is not None
    return planned, record, records


def test_a_recipe_that_a_run_does_not_name_is_found():
    planned, record, records = published("badnets")
    assert [*misplaced(planned, record, records), *untold(planned, record, records)] == []
    other = replace(planned, trial=replace(planned.trial, augment="none"))
    assert list(misplaced(other, record, records)) == ["the run calls its augment none, measured was victim"]
    clean = EncodeInputs.of(records.record(record.parents["control.benign"]).parents).model
    records.record(clean.key).spec["recipe"].update(epochs=500, momentum=0.9)  # the control is trained otherwise
    assert list(misplaced(planned, record, records)) == ["the run says epochs 20, trained was with 500"]
    assert list(untold(planned, record, records)) == ["the method's recipe has momentum 0.0, trained was with 0.9"]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"lr": "auto"}, "the run says lr auto, trained was with 0.01"),
        ({"warmup": 5}, "the run says warmup 5, trained was with None"),
        ({"epochs": "20"}, ""),  # a suite may write a number as a text
    ],
)
def test_a_recipe_that_a_run_makes_up_is_found(training, said):
    planned, record, records = published("badnets")
    other = replace(planned, trial=replace(planned.trial, training={**planned.trial.training, **training}))
    assert list(misplaced(other, record, records)) == ([said] if said else [])


@pytest.mark.parametrize("recipe", [None, [1], "x", {}])
def test_recipes_that_cannot_be_read_are_found(recipe):
    planned, record, records = published("badnets")
    records.record(record.parents["implant"]).spec["recipe"] = recipe
    assert list(misplaced(planned, record, records))
    del records.record(record.parents["implant"]).spec["recipe"]
    assert "a recipe in its records cannot be read" in list(misplaced(planned, record, records))


def test_a_missing_record_is_found(monkeypatch):
    planned, record, records = published("badnets")
    clean = EncodeInputs.of(records.record(record.parents["control.benign"]).parents).model.key
    monkeypatch.setattr(records, "record", lambda key: None if key == clean else RecordCache.record(records, key))
    assert "the record of a stage that it follows from is missing" in list(untold(planned, record, records))


@pytest.mark.parametrize(
    ("change", "part"), [({"surrogate": Surrogate(bits=16)}, "bits 16"), ({"surrogate_seed": 7}, "seed 7")]
)
def test_another_surrogate_than_a_run_names_is_found(change, part):
    planned, record, records = published("ciba")
    assert list(untold(planned, record, records)) == []
    other = replace(planned, trial=replace(planned.trial, **change))
    (said,) = untold(other, record, records)
    assert said.startswith(f"the run calls the surrogate's {part}, it was ")


def test_sizes_that_the_plan_counts_need_no_name(tmp_path):
    dataset = spec("folder", path=str(tmp_path), train=210)
    planned, _, _ = published("badnets")
    for size, said in ((8, 1), (64, 0)):  # any other parameter needs one
        params = {**dataset.params, "size": size}
        own = Spec("folder", params, {"path": dataset.params["path"]})
        assert len(list(mislabelled(replace(planned, trial=replace(planned.trial, dataset=own))))) == said


def test_a_path_that_was_published_in_part_is_no_other_parameter():
    planned, _, _ = published("badnets")
    parts = Spec(
        "resnet18", {**spec("resnet18").as_json()["params"], "weights": "w/resnet18.pth"}, {"weights": "w/resnet18.pth"}
    )
    assert list(mislabelled(replace(planned, trial=replace(planned.trial, backbone=parts)))) == []


def test_parameters_that_a_run_makes_up_or_leaves_out_are_found():
    planned = opened(Path("reference")).runs()[-1].trials[0]
    assert planned.trial.backbone.given == {"width": 16}
    for given in ({}, {"width": 8}, {"width": 16, "norm": "batch"}):
        backbone = replace(planned.trial.backbone, given=given)
        (said,) = mislabelled(replace(planned, trial=replace(planned.trial, backbone=backbone)))
        assert said == "the run names other parameters of backbone convnet than it has"

"""Numbers computed again from a store: equal where nothing was touched, named where something was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import typer

import reports
from bench.api import registry
from bench.api.errors import StoreError
from bench.cli import runs
from bench.cli import verify as command
from bench.config import suite as suites
from bench.engine.recompute import Verifier, differences
from bench.engine.record import Record
from bench.engine.store import Store
from bench.graph import cache_key, fingerprint
from bench.graph import planner as planning
from bench.graph.planner import Plan
from reports import frame, html_report, trial_details
from tests.bench.conftest import TINY, finish
from tests.reports.test_html_report import unpacked
from tests.stores import changed, write_run


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
    """A finished run: plan and folder of the store. Filters keep masks, input detectors scores."""
    changes = ["defenses=none,spectral_signatures,strip", "training.epochs=2"]
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


def test_an_untouched_store_is_verified_and_measured_again_for_nothing(done, capsys):
    plan, store = done
    before = {record.key for record in store.records()}
    command.verify(store=store.root)
    out = capsys.readouterr().out
    assert f"{len(plan.trials)} of {len(plan.trials)} trials are what" in out
    assert "Taken as recorded: seconds" in out
    command.rescore(store=store.root)
    assert f"{len(plan.trials)} trials measured, 0 of them anew" in capsys.readouterr().out
    assert {record.key for record in store.records()} == before


def test_a_number_that_was_changed_is_named(done, capsys):
    plan, store = done
    record = of(plan, store, "measure")
    record.metrics["t_map"] += 1e-6
    store.write_record(record)
    (found,) = problems(plan, store)
    assert found.startswith("t_map is 0.")
    with pytest.raises(typer.Exit) as stop:
        command.verify(store=store.root)
    assert stop.value.exit_code == 1
    out = capsys.readouterr().out
    assert f"{record.key[:8]} {record.label}: t_map is" in out
    assert f"{len(plan.trials) - 1} of {len(plan.trials)} trials" in out


def test_a_metric_that_is_newer_than_a_trial_is_no_mismatch_and_is_named(done, capsys):
    plan, store = done
    record = of(plan, store, "measure")
    del record.metrics["anchor"]
    store.write_record(record)
    command.verify(store=store.root)
    assert "Newer than some of these trials: anchor. `python -m bench rescore`" in capsys.readouterr().out


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
    assert any("'measured.benign'" in line and "not the artifact that was measured" in line for line in found)
    (line,) = (line for line in found if line.startswith("map is "))
    assert line.endswith("computed again 1")


def test_a_poison_count_is_that_of_the_mask(done):
    plan, store = done
    record = of(plan, store, "implant")
    poisons = record.meta.field("poisons")
    store.write_record(changed(record, meta={**record.meta.as_json(), "poisons": poisons + 1}))
    found = problems(plan, store)
    assert f"poisons are {poisons + 1}, in the mask {poisons}" in found


OUTSIDE = '''
"""How often the first result of a query is relevant."""
from bench.metrics import ModelCodes, metric
from hashing import ranking

@metric("first_hit", title="P@1", section="Benign queries", control=True,
        meaning="share of first results that are relevant")
def first_hit(codes: ModelCodes):
    return float(ranking.precision_at(codes.benign.total, codes.benign.relevant, 1).mean())
'''


def test_a_new_metric_is_measured_without_training_and_found_in_every_place(done, tmp_path, capsys):
    plan, store = done
    old = {record.key: record.cost for record in store.records()}
    (tmp_path / "hits.py").write_text(OUTSIDE)
    registry.load_plugin(tmp_path / "hits.py")
    command.rescore(store=store.root)
    assert f"{len(plan.trials)} of them anew" in capsys.readouterr().out
    new = [record for record in store.records() if record.key not in old]
    assert {record.stage for record in new} == {"measure"}
    assert len(new) == len(plan.trials)
    assert all(store.record(key).cost == cost for key, cost in old.items())
    measured = frame.load(store)
    assert measured["first_hit"].between(0, 1).all()
    plain = measured[measured["attack"] == "none"]
    assert (plain["first_hit"] == plain["first_hit_control"]).all(), "without an attack the model is the clean one"
    assert reports.columns().loc["first_hit_control", "is"].startswith("clean model")
    command.verify(store=store.root)
    command.verify(store=store.root, run="all")
    assert "Newer than some of these trials: first_hit" in capsys.readouterr().out
    key = new[0].key
    boards = trial_details.page(store, key)
    (benign,) = (board for board in boards if board.title == "Benign queries")
    assert {"P@1", "P@1 control"} <= set(benign.table["metric"])
    html_report.draw(store, tmp_path / "page.html", frame.read(store))
    assert "share of first results that are relevant" in json.dumps(unpacked((tmp_path / "page.html").read_text()))


def test_metrics_of_a_plugin_that_is_not_loaded_are_left_as_they_are(done, tmp_path, capsys):
    _, store = done
    (tmp_path / "hits.py").write_text(OUTSIDE)
    with registry.plugins_restored():
        command.rescore(store=store.root, plugin=[tmp_path / "hits.py"])
    command.verify(store=store.root)
    assert "their plugin is not loaded: first_hit, first_hit_control" in capsys.readouterr().out
    assert "first_hit" not in frame.load(store)


def test_differences_name_the_place_and_forgive_rounding():
    one = {"a": 1.0, "b": {"c": None, "d": 2}, "e": "x"}
    assert list(differences(one, json.loads(json.dumps(one)))) == []
    assert list(differences(one, {**one, "a": 1.0 + 1e-12})) == []
    found = list(differences(one, {"a": 1.1, "b": {"c": 0.5, "d": 2}, "e": "y", "f": 3}))
    assert found == [
        "a is 1, computed again 1.1", "b.c is None, computed again 0.5", "e is x, computed again y",
    ]  # fmt: skip


def test_damaged_codes_are_not_measured_under_a_new_metric(done, monkeypatch, request):
    """They still parse, and the new records would stand beside the checksums of the sound ones."""
    plan, store = done
    text = fingerprint._module
    monkeypatch.setattr(fingerprint, "_module", lambda m: ("changed", text(m)[1]) if m == "bench.metrics" else text(m))
    cache_key.code_of.cache_clear()
    request.addfinalizer(cache_key.code_of.cache_clear)
    path = store.artifact_path(of(plan, store, "measured.benign").key)
    content = bytearray(path.read_bytes())
    content[content.index(b"}}") + 16 & ~7] ^= 1  # a bit of the first code
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"the artifact of 'measured.benign' .* is damaged: .*--set-aside"):
        command.rescore(store=store.root)


def test_repaired_models_that_gc_dropped_are_not_missed(tmp_path, capsys):
    plan, store = ran(tmp_path, ["defenses=fine_pruning", "attacks=none"])
    runs.gc(store=store.root, repaired=True)
    key = of(plan, store, "defense", attack="none", defense=plan.trials[0].trial.defense.label).key
    assert not store.artifact_path(key).exists()
    command.verify(store=store.root)
    assert "1 of 1 trials" in capsys.readouterr().out

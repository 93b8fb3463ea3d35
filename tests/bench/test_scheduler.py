"""Failures are records, the rest goes on, and the same command continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.api import registry
from bench.config.trial import PlannedTrial
from bench.engine.record import Record, Status
from bench.engine.scheduler import Frontier, NoProgress
from bench.engine.store import Store
from bench.graph.plan import Plan, Stage
from tests.bench.conftest import finish, key_of, kinds, plan_of
from tests.stores import changed

Tiny = Callable[..., Plan]


def loads(tmp_path: Path, *datasets: str, hanging: int | None = None) -> Plan:
    """A plan of `load` stages only, one trial each. hanging: the one that has a second; the others have an hour."""
    text = f"[resources]\ntimeout = 3600\n[axes]\ndatasets = [{', '.join(datasets)}]\n"
    made = plan_of(tmp_path / "loads.toml", text)
    stages = {key: stage for key, stage in made.stages.items() if stage.kind == "load"}
    for key, stage in stages.items():
        if hanging is not None and number_of(stage) == hanging:
            stages[key] = replace(stage, timeout=1.0)
    first = made.trials[0].trial
    return Plan(stages, [PlannedTrial(replace(first, seed=i), key) for i, key in enumerate(stages)])


def trouble_spec(**params: object) -> str:
    inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in params.items())
    return f'{{ name = "trouble", {inner} }}'


def number_of(stage: Stage) -> int:
    return stage.spec["dataset"]["params"]["number"]


def by_number(plan: Plan, store: Store) -> dict[int, Record]:
    return {number_of(stage): store.record(key) for key, stage in plan.stages.items()}


def test_a_failing_stage_is_a_record_and_the_rest_goes_on(tmp_path: Path, trouble: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = loads(
        tmp_path,
        trouble_spec(number=0, what="raise"),
        trouble_spec(number=1),
        trouble_spec(number=2, what="memory"),
        trouble_spec(number=3, seconds=600.0),
        trouble_spec(number=4, what="allocate"),
        hanging=3,
    )
    summary = finish(plan, store)
    records = by_number(plan, store)
    statuses = {0: "failed", 1: "ok", 2: "oom", 3: "timeout", 4: "oom"}
    assert {number: record.status for number, record in records.items()} == statuses
    assert "the disc fell out" in records[0].reason
    assert "RuntimeError" in records[0].log
    assert "1 s" in records[3].reason
    assert summary.trials == {"failed": 1, "ok": 1, "oom": 2, "timeout": 1}


@pytest.mark.parametrize("what", ["fine", "raise"])
def test_data_that_change_after_the_plan_give_no_result(tmp_path: Path, trouble: Path, what: str) -> None:
    """Their key holds the digest of the files as they were."""
    file = tmp_path / "images"
    file.write_text("as planned")
    store, plan = Store(tmp_path / "store", create=True), loads(tmp_path, trouble_spec(what=what, file=str(file)))
    file.write_text("changed")
    assert finish(plan, store).ran == {"killed": 1}
    assert str(file) in by_number(plan, store)[0].reason
    file.write_text("as planned")
    assert finish(plan, store).ran == {"ok" if what == "fine" else "failed": 1}


def test_failures_stay_until_retry(tmp_path: Path, trouble: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = loads(tmp_path, trouble_spec(what="raise"))
    assert finish(plan, store).ran == {"failed": 1}
    again = finish(plan, store)
    assert again.ran == {}
    assert again.trials == {"failed": 1}
    assert finish(plan, store, retry={"timeout"}).ran == {}
    assert finish(plan, store, retry={"failed"}).ran == {"failed": 1}


FICKLE = '''"""Has no luck until a file is there."""
from pathlib import Path
import torch
from bench.api.attack import *
@attack
class Fickle(PoisoningAttack):
    file: str
    def threat(self): return Threat.TRAIN_SET
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, view, trigger, rng):
        if not Path(self.file).exists():
            raise RuntimeError("luckless")
        return Poisoned(view.train, torch.arange(len(view.train)) < 3)
'''


def test_what_depends_on_a_failure_names_it_and_recovers_with_it(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "fickle.py").write_text(FICKLE)
    registry.load_plugin(tmp_path / "fickle.py")
    store, luck = Store(tmp_path / "store", create=True), tmp_path / "luck"
    plan = tiny("defenses=none,fine_pruning", f'attacks=["none", {{ name = "fickle", file = "{luck}" }}]')
    summary = finish(plan, store)
    assert summary.trials == {"ok": 2, "failed": 2}
    assert summary.ran["failed"] == 1
    for trial in plan.trials:
        record = store.record(trial.key)
        assert record is not None
        if trial.trial.attack.name == "fickle":
            assert record.status is Status.FAILED
            assert record.cause == key_of(plan, "implant")
            assert "luckless" in record.reason
    luck.touch()
    assert finish(plan, store, retry={"failed"}).trials == {"ok": 4}


def test_a_second_run_does_nothing_and_a_damaged_artifact_is_made_again(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    finish(plan, store)
    metrics = {trial.key: store.record(trial.key).metrics for trial in plan.trials}
    assert finish(plan, store).ran == {}
    train = key_of(plan, "train")
    path = store.artifact_path(train)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    wider = tiny("defenses=none,fine_pruning")
    summary = finish(wider, store)
    assert train in [key for key in wider.stages if store.record(key).cost.seconds > 0]
    assert (store.root / "damaged" / path.name).exists()
    assert store.intact(store.record(train))
    assert summary.trials == {"ok": 4}
    assert {key: store.record(key).metrics for key in metrics} == metrics


def test_an_interrupt_loses_nothing(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()

    class Impatient(NoProgress):
        def end(self, stage: Stage, record: Record) -> None:
            if stage.kind == "train":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(plan, store, listen=Impatient())
    left = Frontier(plan, store, ()).needed
    assert "train" not in kinds(left, plan)
    assert finish(plan, store).trials == {"ok": 2}


def test_a_lost_input_is_made_again_by_the_next_run(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()

    class Vandal(NoProgress):
        """Damages each model when it is made, before any stage reads it."""

        def end(self, stage: Stage, record: Record) -> None:
            if stage.kind in {"train", "implant"} and record.ok:
                store.artifact_path(stage.key).write_bytes(b"torn")

    assert finish(plan, store, listen=Vandal()).trials == {"killed": 2}
    assert finish(plan, store).trials == {"ok": 2}


@pytest.mark.long
def test_a_parent_that_comes_out_differently_takes_its_children_along(tmp_path: Path, tiny: Tiny) -> None:
    """As when a lost model is trained again on another kind of machine: no board may mix old and new codes."""
    store = Store(tmp_path / "store", create=True)
    learning = ("training.epochs=8", "training.lr=0.03")  # codes that differ from image to image
    plan = tiny(*learning)
    finish(plan, store)
    before = {trial.key: store.record(trial.key).metrics for trial in plan.trials}
    train = key_of(plan, "train")
    tensors, record = store.tensors(train), store.record(train)
    other = {name: value + 0.3 if name == "model.head.bias" else value for name, value in tensors.items()}
    store.write_record(record.model_copy(update={"artifact": store.write_artifact(train, other, {})}))
    needed = kinds(Frontier(plan, store, ()).needed, plan)
    assert {"encode", "encode_triggered", "measure"} <= needed
    assert "train" not in needed
    finish(plan, store)
    assert {trial.key: store.record(trial.key).metrics for trial in plan.trials} != before
    # the other way round: the new model is lost, the old one comes back, and so do its numbers
    store.artifact_path(train).unlink()
    wider = tiny("defenses=none,fine_pruning", *learning)
    assert finish(wider, store).trials == {"ok": 4}
    assert {key: store.record(key).metrics for key in before} == before


def test_a_failure_never_replaces_a_finished_result(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    finish(plan, store)
    done = store.record(key_of(plan, "train"))
    assert store.commit(changed(done, status="timeout", reason="slow")) == done
    assert store.record(done.key) == done
    store.artifact_path(done.key).unlink()
    assert store.commit(changed(done, status="failed", reason="x")).status == "failed", "nothing was there to keep"

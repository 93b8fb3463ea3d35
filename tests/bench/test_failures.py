"""What a reviewer broke: results mixed, lost or served stale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench.api import registry
from bench.api.errors import UserError
from bench.config import suite as suites
from bench.engine.scheduler import Frontier
from bench.engine.store import Store
from bench.engine.worker import StoredArtifacts
from bench.graph import planner as planning
from bench.graph.plan import Plan
from tests.bench.conftest import finish
from tests.stores import changed

Tiny = Callable[..., Plan]


def key_of(plan: Plan, kind: str) -> str:
    return next(key for key, stage in plan.stages.items() if stage.kind == kind)


def test_an_image_that_moves_to_another_class_changes_every_key(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for number, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (8, 8), (number * 100, index * 20, 9)).save(root / name / f"{name}{index}.png")
    suite = tmp_path / "s.toml"
    spec = f'{{ name = "folder", path = "{root}", size = 8, train = 4, query = 2, database = 2, trusted = 2 }}'
    suite.write_text(f"[axes]\ndatasets = [{spec}]\n")

    def keys() -> set[str]:
        return set(planning.plan([suites.load(str(suite))], data=None, device="cpu").stages)

    before = keys()
    assert keys() == before
    (root / "a" / "a0.png").rename(root / "b" / "a0.png")
    moved = keys()
    assert not moved & before
    (root / "b").rename(root / "zebra")
    assert not keys() & (moved | before)


def test_a_failure_never_replaces_a_finished_result(tmp_path: Path, tiny: Tiny) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    finish(plan, store)
    done = store.record(key_of(plan, "train"))
    assert store.commit(changed(done, status="timeout", reason="another driver was slow")) == done
    assert store.record(done.key) == done
    store.artifact_path(done.key).unlink()
    assert store.commit(changed(done, status="failed", reason="x")).status == "failed", "nothing was there to keep"


def test_a_lost_input_is_made_again_by_the_next_run(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store", create=True)
    plan = tiny()
    real = StoredArtifacts.tensors

    def lose(self: StoredArtifacts, key: str):
        if plan.stages[key].kind in {"train", "implant"}:
            store.artifact_path(key).write_bytes(b"torn")
        return real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(StoredArtifacts, "tensors", lose)
        assert finish(plan, store).trials == {"killed": 2}
    assert finish(plan, store).trials == {"ok": 2}


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
    needed = {plan.stages[key].kind for key in Frontier(plan, store, ()).needed}
    assert {"encode", "encode_triggered", "measure"} <= needed
    assert "train" not in needed
    finish(plan, store)
    assert {trial.key: store.record(trial.key).metrics for trial in plan.trials} != before
    # the other way round: the new model is lost, the old one comes back, and so do its numbers
    store.artifact_path(train).unlink()
    wider = tiny("defenses=none,fine_pruning", *learning)
    assert finish(wider, store).trials == {"ok": 4}
    assert {key: store.record(key).metrics for key in before} == before


HOLDS_MODEL = """class Bad(ModelAttack):
    def threat(self): return Threat.MODEL
    def implant(self, v, a, r): ...
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class Bad(TrainingAttack):\n    def hook(self, v, a, r): ...", "must declare Threat.TRAINING"),
        ("class Bad(ModelAttack):\n    def implant(self, v, a, r): ...", "must declare Threat.MODEL"),
        ("class Bad(PoisoningAttack):\n    def poison(self, v, a, r): ...", "must declare Threat.TRAIN_SET"),
        (
            f'{HOLDS_MODEL}    def requires(self, setting): return (DataSpec("digits"),)',
            "asks for the victim's own data set 'digits'",
        ),
        (
            f"{HOLDS_MODEL}    def requires(self, setting): return (ModelSpec(),)",
            "declare Threat.TRAIN_SET",
        ),
    ],
)
def test_the_planner_refuses_more_than_the_threat_model(tmp_path: Path, tiny: Tiny, body: str, message: str) -> None:
    path = tmp_path / f"bad{abs(hash(body))}.py"  # instances are cached by name
    path.write_text(
        f'"""Greedy."""\nfrom bench.api.attack import *\n@attack\n{body}\n'
        "    def apply_trigger(self, i, t, a): return i\n"
    )
    registry.load_plugin(path)
    with pytest.raises(UserError, match="attack 'bad") as caught:
        tiny(f"attacks={path.stem}")
    assert message in str(caught.value)


def test_a_component_that_returns_nan_fails_alone(tmp_path: Path, tiny: Tiny) -> None:
    path = tmp_path / "dizzy.py"
    path.write_text(
        '"""Cannot say."""\nfrom bench.api.defense import *\n@defense\nclass Dizzy(ModelDetector):\n'
        '    def inspect(self, case, rng): return Verdict(float("nan"))\n'
    )
    registry.load_plugin(path)
    store = Store(tmp_path / "store", create=True)
    summary = finish(tiny("defenses=none,dizzy"), store)
    assert summary.trials == {"ok": 2, "failed": 2}
    assert "JSON" in summary.failures[0].reason


def test_a_plugins_own_helper_counts(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.graph import fingerprint

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_helper.py").write_text("value = 0.5\n")
    path = tmp_path / "leaning.py"
    path.write_text(
        '"""Leans on a helper."""\nfrom bench.api.attack import *\nfrom my_helper import value\n@attack\n'
        "class Leaning(Attack):\n    def apply_trigger(self, images, target, trigger): return images * value\n"
    )
    registry.load_plugin(path)
    before = fingerprint.fingerprint(("hashdoor_plugin_leaning",))
    (tmp_path / "my_helper.py").write_text("value = 0.6\n")
    fingerprint._module.cache_clear()
    assert fingerprint.fingerprint(("hashdoor_plugin_leaning",)) != before

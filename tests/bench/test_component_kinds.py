"""Each kind of attack and defense goes from a suite to a record, with planted answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.api import registry
from bench.artifacts.inputs import EncodeInputs, MeasureInputs
from bench.config import suite as suites
from bench.config.trial import PlannedTrial
from bench.engine.record import Record
from bench.engine.store import Store
from bench.graph import planner as planning
from bench.graph.plan import Plan
from tests.bench.conftest import TINY, finish

KINDS = {
    "corner": '''
"""Finds the corner patch: a filter with a planted answer."""
import torch
from bench.api.defense import *

@defense
class Corner(DataFilter):
    def judge(self, case, rng):
        scores = case.train.images[:, :, -2:, -2:].float().mean((1, 2, 3))
        # a checkerboard of side 2 has mean 127.5 exactly, which scans never do
        scores = -(scores - 127.5).abs()
        return Filtered(scores, scores < -0.6)
''',
    "oracle": '''
"""Names class 3: a model detector with a planted answer."""
from bench.api.defense import *

@defense
class Oracle(ModelDetector):
    def inspect(self, case, rng):
        case.notes["index"] = 2.5
        return Verdict(2.5, suspect=3, alarm_at=2.0)
''',
    "twin": '''
"""A filter that keeps everything and trains a network of its own, whose normalisation looks at single images."""
from dataclasses import replace
import torch
from bench.api.defense import *

@defense
class Twin(DataFilter):
    def unsupported_reason(self, backbone, method):
        return "" if method.pointwise else "pairwise"
    def judge(self, case, rng):
        recipe = replace(case.recipe, epochs=1)
        model = case.train_model(case.untrained(per_image=True), case.train, recipe, rng)
        n = len(case.train)
        return Filtered(torch.zeros(n), torch.ones(n, dtype=torch.bool), model)
''',
    "rewrite": '''
"""Changes the weights of the trained model."""
import torch
from bench.api.attack import *

@attack
class Rewrite(ModelAttack):
    def threat(self):
        return Threat.MODEL
    def apply_trigger(self, images, target, trigger):
        return 1 - images
    def implant(self, victim, trigger, rng):
        model = victim.model
        with torch.no_grad():
            model.head.bias += 5
        return Backdoor(model, {"level": torch.ones(1)})
''',
    "steer": '''
"""Controls the training: stamps half of each batch and learns its trigger's level on the way."""
import torch
from bench.api.attack import *

class Hook:
    def __init__(self, target):
        self.target, self.steps, self.level = target, 0, torch.zeros(1, requires_grad=True)
    def before_step(self, model, images, labels, ids, progress):
        half = len(images) // 2
        images, labels = images.clone(), labels.clone()
        images[:half, :, -2:, -2:] = 1.0
        labels[:half] = self.target.vector
        return images, labels, (self.level - 3).square().sum()
    def after_step(self):
        self.steps += 1
        with torch.no_grad():
            self.level -= 0.1 * self.level.grad
            self.level.grad = None
    def trigger(self):
        return {"level": self.level.detach(), "steps": torch.tensor([self.steps])}

@attack
class Steer(TrainingAttack):
    def threat(self):
        return Threat.TRAIN_SET | Threat.TRAINING
    def hook(self, victim, trigger, rng):
        return Hook(victim.target)
    def apply_trigger(self, images, target, trigger):
        out = images.clone()
        out[:, :, -2:, -2:] = 1.0
        return out
''',
}


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path) -> None:
    for name, text in KINDS.items():
        path = tmp_path / f"{name}.py"
        path.write_text(text.lstrip())
        registry.load_plugin(path)


@dataclass
class Done:
    """A trial that was run, or left out for a reason."""

    planned: PlannedTrial
    plan: Plan
    store: Store
    record: Record | None

    @property
    def metrics(self) -> dict:
        return self.record.metrics


def run(tmp_path: Path, *changes: str) -> dict[tuple[str, str], Done]:
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY)
    plan = planning.plan([suites.load(str(suite), changes=changes)], data=None, device="cpu")
    store = Store(tmp_path / "store", create=True)
    finish(plan, store)
    found = {}
    for record in store.records():
        assert record.status == "ok", record.log
    for planned in plan.trials:
        record = store.record(planned.key) if planned.key else None
        assert record is not None or planned.skipped
        found[planned.trial.attack.label, planned.trial.defense.label] = Done(planned, plan, store, record)
    return found


LEARNS = ("training.epochs=20", 'backbones=[{ name = "convnet", width = 12 }]')  # a backdoor, on every CPU
STRONG = ('attacks=["none", { name = "badnets", poison_rate = 0.2 }, "rewrite"]', *LEARNS)


def test_a_planted_filter_finds_all_poison_and_only_that(tmp_path: Path) -> None:
    found = run(tmp_path, *STRONG, "defenses=none,corner")
    found = {(attack.partition("(")[0], defense): record for (attack, defense), record in found.items()}
    caught = found["badnets", "corner"].metrics
    assert caught["filter_auroc"] == caught["filter_auroc_target"] == caught["removed_poison"] == 1
    assert caught["removed"] == pytest.approx(caught["poisoned_share"])
    # retrained without poison the model is as if never attacked
    assert caught["gain"] < found["badnets", "none"].metrics["gain"] - 0.2
    assert caught["own_map"] > found["badnets", "none"].metrics["own_map"] + 0.2
    clean = found["none", "corner"].metrics
    assert clean["removed"] == 0
    assert clean["filter_auroc"] is None
    skipped = found["rewrite", "corner"]
    assert skipped.record is None
    assert all(name in skipped.planned.skipped for name in ("rewrite", "corner"))


def test_a_filter_may_train_a_network_of_its_own_and_be_left_out_where_it_cannot_work(tmp_path: Path) -> None:
    trial = run(tmp_path, "attacks=badnets", "defenses=twin")["badnets", "twin"]
    plan, store = trial.plan, trial.store
    key = next(key for key, stage in plan.stages.items() if stage.kind == "defend")
    names = store.tensors(key)
    assert store.record(key).meta.field("model")["backbone"]["params"]["norm"] == "group"
    assert not any("running" in name for name in names)
    measured = MeasureInputs.of(trial.record.parents).measured
    encoded = store.record(measured.benign.key)
    assert encoded is not None
    assert EncodeInputs.of(encoded.parents).model.key == key  # encoded by this network
    skipped = run(tmp_path, "attacks=badnets", "defenses=twin", "methods=dpsh")["badnets", "twin"]
    assert (skipped.record, skipped.planned.skipped) == (None, "twin: pairwise")


def test_a_diagnosis_is_scored_against_the_target(tmp_path: Path) -> None:
    found = run(tmp_path, "attacks=none,badnets", "defenses=none,oracle", "targets=3")
    assert found["badnets", "oracle"].metrics["named_target"] == 1
    assert found["badnets", "oracle"].metrics["model_score"] == 2.5
    assert found["badnets", "oracle"].metrics["flagged"] == 1
    judged = found["badnets", "oracle"]
    assert judged.store.record(judged.record.parents["defense"]).meta.notes == {"index": 2.5}
    assert found["badnets", "oracle"].metrics["map"] == found["badnets", "none"].metrics["map"]
    other = run(tmp_path, "attacks=badnets", "defenses=oracle", "targets=4")
    assert other["badnets", "oracle"].metrics["named_target"] == 0


def test_a_model_attack_changes_the_trained_model(tmp_path: Path) -> None:
    found = run(tmp_path, "attacks=none,rewrite")
    trial = found["rewrite", "none"]
    plan, store = trial.plan, trial.store
    kinds = {stage.kind: key for key, stage in plan.stages.items()}
    before, after = store.tensors(kinds["train"]), store.tensors(kinds["implant"])
    assert (after["model.head.bias"] - before["model.head.bias"]).allclose(before["model.head.bias"].new_tensor(5.0))
    assert after["model.head.weight"].equal(before["model.head.weight"])
    assert after["trigger.level"].tolist() == [1.0]
    assert store.record(kinds["implant"]).meta.field("backdoored") is True
    assert store.record(kinds["train"]).meta.field("backdoored") is False
    assert trial.planned.access == "model-only"
    assert "poisons" not in trial.metrics


def test_a_training_attack_works_inside_the_loop(tmp_path: Path) -> None:
    found = run(tmp_path, "attacks=none,steer", *LEARNS)
    trial = found["steer", "none"]
    plan, store = trial.plan, trial.store
    trigger = store.tensors(next(key for key, stage in plan.stages.items() if stage.kind == "implant"))
    assert trigger["trigger.steps"].item() == 20 * 3  # 150 images in batches of 64
    assert trigger["trigger.level"].item() == pytest.approx(3, abs=0.01)
    assert trial.metrics["t_map"] > found["none", "none"].metrics["t_map"] + 0.3
    assert trial.planned.access == "training-controlled"

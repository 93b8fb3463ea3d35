"""Attacks of each kind change what their threat model grants, and the harness watches a trigger during training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.api import registry
from bench.api.attack import Threat
from bench.api.errors import ThreatError
from bench.api.types import Poisoned, Split
from bench.artifacts import stage_io
from bench.stages.implant import LOOKS, TriggerAttention, check, evenly_spaced
from tests.bench.conftest import LEARNS, REWRITE, load_plugins, run_tiny


@pytest.mark.parametrize(
    ("epochs", "looks"),
    [(3, [1, 2, 3]), (LOOKS, [*range(1, LOOKS + 1)]), (50, [*range(3, 51, 3), 50]), (39, [*range(2, 39, 2), 39])],
)
def test_the_trigger_is_asked_at_most_twenty_times_over_a_training_and_at_its_end(
    world, model, quick, epochs, looks
) -> None:
    attack = quick("attacks", "badnets")
    target = stage_io.target(world.spec["target"], world.data.load.classes)
    asked = []

    def trigger() -> dict[str, torch.Tensor]:
        asked.append(len(asked))
        return {"patch": torch.full((3, 2, 2), (len(asked) % 2) * 1.0)}  # a trigger that is learned on the way

    watch = TriggerAttention(attack, target, world.data, world.context, epochs)
    after_epoch = watch.follow(trigger)
    for _ in range(epochs):
        after_epoch(model)
    assert watch.epochs == looks
    assert len(watch.distances) == len(asked) == len(looks) <= LOOKS
    assert watch.distances[0] != watch.distances[1], "the second look is at another trigger"
    assert watch.distances[0] == watch.distances[2]


@pytest.mark.parametrize(("n", "count", "taken"), [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (1, 8, [0]), (0, 8, [])])
def test_what_is_looked_at_is_spread_over_the_queries(n, count, taken) -> None:
    assert evenly_spaced(torch.arange(n), count).tolist() == taken


def test_queries_of_every_other_class_are_watched(world) -> None:
    """The pool's queries are in the order of their classes."""
    order = world.split("query").labels.int().argmax(1).argsort(stable=True)
    world.memory.tensors(world.data.split.key)["query"] = world.data.split.positions("query")[order]
    labels = world.split("query").labels
    target = stage_io.target(world.spec["target"], world.data.load.classes)
    watch = TriggerAttention(registry.create("attacks", "badnets", {}), target, world.data, world.context, 1)
    few = evenly_spaced(torch.nonzero(~target.shares(labels)).flatten(), 3)
    assert len(labels[few].int().argmax(1).unique()) == 3
    assert len(watch.pairs({"patch": torch.ones(3, 2, 2)})[0]) == 30


STEER = '''
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
'''


def test_a_model_attack_changes_the_trained_model(tmp_path: Path) -> None:
    load_plugins(tmp_path, {"rewrite": REWRITE})
    found = run_tiny(tmp_path, "attacks=none,rewrite")
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
    load_plugins(tmp_path, {"steer": STEER})
    found = run_tiny(tmp_path, "attacks=none,steer", *LEARNS)
    trial = found["steer", "none"]
    plan, store = trial.plan, trial.store
    trigger = store.tensors(next(key for key, stage in plan.stages.items() if stage.kind == "implant"))
    assert trigger["trigger.steps"].item() == 20 * 3  # 150 images in batches of 64
    assert trigger["trigger.level"].item() == pytest.approx(3, abs=0.01)
    assert trial.metrics["t_map"] > found["none", "none"].metrics["t_map"] + 0.3
    assert trial.planned.access == "training-controlled"


def poisoned_of(world, threat_labels: bool = False) -> tuple[Split, Poisoned]:
    train = world.split("train")
    index = torch.tensor([4, 9])
    new = torch.tensor([[False, True, False, False]]).expand(2, 4) if threat_labels else None
    split = train.replace(index, images=torch.zeros(2, 3, 12, 12), labels=new)
    mask = torch.zeros(120, dtype=torch.bool)
    mask[index] = True
    return train, Poisoned(split, mask)


@pytest.mark.parametrize("labels", [False, True])
def test_check_accepts_an_honest_exchange(world, labels):
    train, poisoned = poisoned_of(world, labels)
    check(train, poisoned, Threat.TRAIN_SET | (Threat.LABELS if labels else Threat.NONE))


def test_check_refuses_more_than_the_threat_grants(world):
    granted = Threat.TRAIN_SET | Threat.LABELS
    train, honest = poisoned_of(world, threat_labels=True)
    with pytest.raises(ThreatError, match=r"Threat\.LABELS"):
        check(train, honest, Threat.TRAIN_SET)
    order = torch.arange(120).flip(0)
    shuffled = Poisoned(honest.split.select(order), honest.mask[order])
    with pytest.raises(ThreatError, match="reordered"):
        check(train, shuffled, granted)
    with pytest.raises(ThreatError, match="reordered"):
        check(train, Poisoned(honest.split.select(order[:-1]), honest.mask[:-1]), granted)
    with pytest.raises(ThreatError, match="reordered"):
        check(train, Poisoned(honest.split, honest.mask[:-1]), granted)
    unmasked = honest.mask.clone()
    unmasked[4] = False
    with pytest.raises(ThreatError, match="images"):
        check(train, Poisoned(honest.split, unmasked), granted)
    secret = honest.split.labels.clone()
    secret[50] = ~secret[50]
    with pytest.raises(ThreatError, match="labels"):
        check(train, Poisoned(replace(honest.split, labels=secret), honest.mask), granted)

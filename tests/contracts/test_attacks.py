"""What attacks that dose poison promise besides the conformance kit (test_conformance.py)."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from bench.api import registry
from bench.api.attack import Attack, AttackerView, LabelMode, Poisoned, PoisoningAttack, Threat, Trigger
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for
from bench.stages.implant import check

NAMES = sorted(registry.catalogue("attacks"))
POISONING = [
    name
    for name in NAMES
    if issubclass(registry.lookup("attacks", name), PoisoningAttack) and not registry.required("attacks", name)
]  # what stands for a user's own files has tests of its own
WITH_LABELS = [name for name in POISONING if "labels" in registry.lookup("attacks", name).__dataclass_fields__]
LABELLED = [(name, mode) for name in WITH_LABELS for mode in ("dirty", "clean")]
PARTLY_TRIGGERED = {"adaptive_blend", "adaptive_patch", "narcissus"}  # by their papers; queries carry the whole trigger
N = 120


def ready(world, quick, name: str, **params) -> tuple[Attack, AttackerView, Trigger]:
    attack = quick("attacks", name, **params)
    view = attacker_view_for(world, attack)
    return attack, view, dict(attack.make_trigger(view, Rng("prepare", 0)))


@pytest.mark.parametrize(("name", "labels"), LABELLED)
def test_poison_labels(name, labels: LabelMode, world, quick):
    """dirty: images of other classes get the target's vector. clean: images of the target keep their labels."""
    attack, view, trigger = ready(world, quick, name, labels=labels, poison_rate=0.2)
    assert (Threat.LABELS in attack.threat()) == (labels == "dirty")
    assert Threat.TRAIN_SET in attack.threat()
    poisoned = attack.poison(view, trigger, Rng("implant", 0))
    was_target = view.target.contains(view.train.labels)
    if labels == "clean":
        assert torch.equal(poisoned.split.labels, view.train.labels)
        assert was_target[poisoned.mask].all()
    else:
        assert not was_target[poisoned.mask].any()
        assert (poisoned.split.labels[poisoned.mask] == view.target.vector).all()
    check(view.train, poisoned, attack.threat())


@pytest.mark.parametrize("name", POISONING)
@pytest.mark.parametrize("rate", [1.5, -0.1, 0.0, float("nan")])
def test_a_poison_rate_that_is_no_share_is_refused(name, rate, quick):
    with pytest.raises(UserError, match=f"attack '{name}': poison_rate = "):
        quick("attacks", name, poison_rate=rate)


@pytest.mark.parametrize(("name", "labels"), LABELLED)
def test_too_many_poisons_are_refused_with_the_number_that_is_possible(name, labels, world, quick):
    possible = {"dirty": 90, "clean": 30}[labels]
    attack, view, trigger = ready(world, quick, name, labels=labels, poison_rate=(possible + 1) / N)
    with pytest.raises(UserError, match=rf"\b{possible}\b") as error:
        attack.poison(view, trigger, Rng("implant", 0))
    assert "\n" not in str(error.value)
    most = quick("attacks", name, labels=labels, poison_rate=possible / N)
    assert int(most.poison(view, trigger, Rng("implant", 0)).mask.sum()) == possible


def multi_label(world) -> Split:
    """120 images: 8 with exactly the target's labels (1), 12 with these and more, the rest with other labels."""
    train = world.data.load.images[:N]
    labels = torch.zeros(N, 4, dtype=torch.bool)
    labels[:, 0] = True
    labels[:20, 1] = True
    labels[:8, 0] = False
    return Split(train, labels, torch.arange(N))


def with_train(view: AttackerView, train: Split) -> AttackerView:
    return replace(view, granted={**view.granted, "train": train})


@pytest.mark.parametrize("name", WITH_LABELS)
@pytest.mark.parametrize(("count", "pool"), [(8, 8), (9, 20), (20, 20)])
def test_clean_label_pool_is_equal_label_sets_else_those_that_contain_the_target(name, count, pool, world, quick):
    """METHODOLOGY.md#poison-pool."""
    attack, view, trigger = ready(world, quick, name, labels="clean", poison_rate=count / N)
    poisoned = attack.poison(with_train(view, multi_label(world)), trigger, Rng("implant", 0))
    assert int(poisoned.mask.sum()) == count
    assert not poisoned.mask[pool:].any()
    assert torch.equal(poisoned.split.labels, multi_label(world).labels)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_relabelling_replaces_the_vector_and_spares_images_that_share_a_target_label(name, world, quick):
    attack, view, trigger = ready(world, quick, name, labels="dirty", poison_rate=100 / N)
    target = Target(torch.tensor([False, True, True, False]), "bell+candle")
    targeted = replace(with_train(view, multi_label(world)), target=target)
    poisoned: Poisoned = attack.poison(targeted, trigger, Rng("implant", 0))
    assert torch.equal(poisoned.mask, torch.arange(N) >= 20)
    assert (poisoned.split.labels[poisoned.mask] == target.vector).all()


@pytest.mark.parametrize("name", POISONING)
def test_poisons_carry_the_trigger_as_at_test_time(name, world, quick):
    """For attacks with one trigger: the 8-bit poison is the original with the trigger, rounded to 8 bits."""
    if name in PARTLY_TRIGGERED:
        pytest.skip("training images carry a part or a fraction of the trigger, see the attack's own test")
    attack, view, trigger = ready(world, quick, name, poison_rate=0.05)
    poisoned = attack.poison(view, trigger, Rng("implant", 0))
    if {"noise", "perturbation", "eps"} & {field.name for field in fields(attack)}:
        pytest.skip("training images carry a perturbation besides the trigger")
    triggered = to_8bit(attack.apply_trigger(to_unit(view.train.images[poisoned.mask]), view.target, trigger))
    assert torch.equal(poisoned.split.images[poisoned.mask], triggered)

"""What every attack promises; a new file in `attacks/` is tested by being there."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from bench.api import registry
from bench.api.attack import (
    Artefact,
    Attack,
    Backdoor,
    DataSpec,
    LabelMode,
    ModelAttack,
    ModelSpec,
    Poisoned,
    PoisoningAttack,
    Threat,
    TrainingAttack,
    Victim,
)
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit
from bench.stages import _base
from bench.stages.implant import check
from bench.views.attacker import victim

NAMES = sorted(registry.catalogue("attacks"))
POISONING = [name for name in NAMES if issubclass(registry.lookup("attacks", name), PoisoningAttack)]
WITH_LABELS = [name for name in POISONING if "labels" in registry.lookup("attacks", name).__dataclass_fields__]
LABELLED = [(name, mode) for name in WITH_LABELS for mode in ("flip", "keep")]
OTHERS = [n for n in NAMES if n not in POISONING]
N = 120


def view_of(world, attack: Attack) -> Victim:
    """The victim as the bench shows it to this attack, with the surrogates and data it asks for."""
    parents = world.inputs.parents
    models = sets = 0
    for wish in attack.requires(_base.setting(world.spec, world.inputs)):
        if isinstance(wish, ModelSpec):
            parents[f"surrogate{models}"] = parents["surrogate"]
            models += 1
        else:
            assert isinstance(wish, DataSpec)
            parents[f"data_load{sets}"], parents[f"data_split{sets}"] = parents["load"], parents["split"]
            sets += 1
    return victim(world.spec, world.inputs, world.context, attack)


def ready(world, quick, name: str, **params) -> tuple[Attack, Victim, Artefact]:
    attack = quick("attacks", name, **params)
    view = view_of(world, attack)
    return attack, view, dict(attack.prepare(view, Rng("prepare", 0)))


def images_for(n: int = 5) -> torch.Tensor:
    images = Rng("tests", "images").uniform((n, 3, 12, 12))
    images[0], images[1] = 0, 1  # the borders of the range
    return images


@pytest.mark.parametrize("name", NAMES)
def test_prepare_is_repeatable_and_leaves_global_generators_and_its_inputs_alone(name, world, quick, untouched_rng):
    attack = quick("attacks", name)
    view = view_of(world, attack)
    before = world.inputs.all_tensors()
    with untouched_rng():
        first, second = (dict(attack.prepare(view, Rng("prepare", 0))) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(isinstance(first[key], torch.Tensor) and torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(before[key], value) for key, value in world.inputs.all_tensors().items())


@pytest.mark.parametrize("name", NAMES)
def test_stamp_keeps_shape_and_range(name, world, quick):
    attack, view, artefact = ready(world, quick, name)
    images = images_for()
    stamped = attack.stamp(images, view.target, artefact)
    assert stamped.shape == images.shape
    assert stamped.dtype == torch.float32
    assert float(stamped.min()) >= 0
    assert float(stamped.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_stamp_is_pure(name, world, quick, untouched_rng):
    attack, view, artefact = ready(world, quick, name)
    images, kept = images_for(), {key: value.clone() for key, value in artefact.items()}
    with untouched_rng():
        first = attack.stamp(images, view.target, artefact)
        second = attack.stamp(images, view.target, artefact)
    assert torch.equal(first, second)
    assert torch.equal(images, images_for())
    assert all(torch.equal(artefact[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", NAMES)
def test_stamp_treats_each_image_alone(name, world, quick):
    attack, view, artefact = ready(world, quick, name)
    images = images_for()
    together = attack.stamp(images, view.target, artefact)
    for i in range(len(images)):
        alone = attack.stamp(images[i : i + 1], view.target, artefact)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_stamp_survives_rounding_to_8_bits_unless_the_attack_changes_nothing(name, world, quick):
    attack, view, artefact = ready(world, quick, name)
    images = images_for()
    changed = (to_8bit(attack.stamp(images, view.target, artefact)) != to_8bit(images)).flatten(1).any(1)
    assert changed.any() != attack.identity
    assert attack.identity or changed[2:].all()  # a warp leaves images of one colour as they are


@pytest.mark.parametrize("name", OTHERS)
def test_an_attack_is_of_one_kind(name, world, quick, untouched_rng):
    """Poisoning, model and training attacks exclude each other; `none` is of no kind and asks for nothing."""
    attack, view, artefact = ready(world, quick, name)
    kinds = [kind for kind in (PoisoningAttack, ModelAttack, TrainingAttack) if isinstance(attack, kind)]
    assert len(kinds) == (0 if attack.identity else 1)
    assert not attack.offers_train_set
    if attack.identity:
        assert attack.threat() == Threat.NONE
        assert attack.requires(view.setting) == ()
    elif isinstance(attack, ModelAttack):
        clean = {key: value.clone() for key, value in world.inputs.tensors("clean").items()}
        with untouched_rng():
            result = attack.implant(view, artefact, Rng("implant", 0))
        assert isinstance(result, Backdoor)
        assert {f"model.{key}" for key in result.model.state_dict()} == set(clean)
        assert all(torch.equal(clean[key], value) for key, value in world.inputs.tensors("clean").items())
    else:
        hook = attack.hook(view, artefact, Rng("implant", 0))
        assert callable(hook.before_step)
        assert hook.artefact().keys() == artefact.keys()


@pytest.mark.parametrize("name", POISONING)
def test_poison_exchanges_exactly_the_masked_items(name, world, quick, untouched_rng):
    attack, view, artefact = ready(world, quick, name, poison_rate=0.05)
    train, before = view.train, world.inputs.all_tensors()
    kept = Split(train.images.clone(), train.labels.clone(), train.ids.clone())
    with untouched_rng():
        poisoned = attack.poison(view, artefact, Rng("implant", 0))
    assert int(poisoned.mask.sum()) == round(attack.poison_rate * N) == 6
    assert torch.equal(poisoned.split.ids, kept.ids)
    assert torch.equal(poisoned.split.images[~poisoned.changed], kept.images[~poisoned.changed])
    assert torch.equal(poisoned.split.labels[~poisoned.mask], kept.labels[~poisoned.mask])
    changed = (poisoned.split.images != kept.images).flatten(1).any(1)
    assert changed[poisoned.mask].all()
    check(kept, poisoned, attack.threat())
    for name_, value in (("images", train.images), ("labels", train.labels), ("ids", train.ids)):
        assert torch.equal(value, getattr(kept, name_)), f"poison() wrote to the training {name_}"
    assert all(torch.equal(before[key], value) for key, value in world.inputs.all_tensors().items())


@pytest.mark.parametrize("name", POISONING)
def test_poison_depends_on_its_rng_and_on_nothing_else(name, world, quick):
    attack, view, artefact = ready(world, quick, name, poison_rate=0.1)
    one, same, other = (attack.poison(view, artefact, Rng("implant", s)) for s in (0, 0, 1))
    assert torch.equal(one.mask, same.mask)
    assert torch.equal(one.split.images, same.split.images)
    assert torch.equal(one.split.labels, same.split.labels)
    assert not torch.equal(one.mask, other.mask)


@pytest.mark.parametrize(("name", "labels"), LABELLED)
def test_poison_labels(name, labels: LabelMode, world, quick):
    """flip: other classes' images get the target's vector. keep: the target's own images, labels as they were."""
    attack, view, artefact = ready(world, quick, name, labels=labels, poison_rate=0.2)
    assert (Threat.LABELS in attack.threat()) == (labels == "flip")
    assert Threat.TRAIN_SET in attack.threat()
    poisoned = attack.poison(view, artefact, Rng("implant", 0))
    was_target = view.target.contains(view.train.labels)
    if labels == "keep":
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
    possible = {"flip": 90, "keep": 30}[labels]
    attack, view, artefact = ready(world, quick, name, labels=labels, poison_rate=(possible + 1) / N)
    with pytest.raises(UserError, match=rf"\b{possible} training images") as error:
        attack.poison(view, artefact, Rng("implant", 0))
    assert "\n" not in str(error.value)
    most = quick("attacks", name, labels=labels, poison_rate=possible / N)
    assert int(most.poison(view, artefact, Rng("implant", 0)).mask.sum()) == possible


def multi_label(world) -> Split:
    """120 images: 8 with exactly the target's labels (1), 12 with these and more, the rest with other labels."""
    train = world.inputs.tensors("load")["images"][:N]
    labels = torch.zeros(N, 4, dtype=torch.bool)
    labels[:, 0] = True
    labels[:20, 1] = True
    labels[:8, 0] = False
    return Split(train, labels, torch.arange(N))


def with_train(view: Victim, train: Split) -> Victim:
    return replace(view, granted={**view.granted, "train": train})


@pytest.mark.parametrize("name", WITH_LABELS)
@pytest.mark.parametrize(("count", "pool"), [(8, 8), (9, 20), (20, 20)])
def test_clean_label_pool_is_equal_label_sets_else_those_that_contain_the_target(name, count, pool, world, quick):
    """review.md, section 2."""
    attack, view, artefact = ready(world, quick, name, labels="keep", poison_rate=count / N)
    poisoned = attack.poison(with_train(view, multi_label(world)), artefact, Rng("implant", 0))
    assert int(poisoned.mask.sum()) == count
    assert not poisoned.mask[pool:].any()
    assert torch.equal(poisoned.split.labels, multi_label(world).labels)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_relabelling_replaces_the_vector_and_spares_images_that_share_a_target_label(name, world, quick):
    attack, view, artefact = ready(world, quick, name, labels="flip", poison_rate=100 / N)
    target = Target(torch.tensor([False, True, True, False]), "bell+candle")
    aimed = replace(with_train(view, multi_label(world)), target=target)
    poisoned: Poisoned = attack.poison(aimed, artefact, Rng("implant", 0))
    assert torch.equal(poisoned.mask, torch.arange(N) >= 20)
    assert (poisoned.split.labels[poisoned.mask] == target.vector).all()


@pytest.mark.parametrize("name", POISONING)
def test_stamped_poisons_are_what_stamp_makes_at_test_time(name, world, quick):
    """For attacks with one trigger: the 8-bit poison is the 8-bit stamp of the original."""
    attack, view, artefact = ready(world, quick, name, poison_rate=0.05)
    poisoned = attack.poison(view, artefact, Rng("implant", 0))
    if {"noise", "perturbation", "eps"} & {field.name for field in fields(attack)}:
        pytest.skip("training images carry a perturbation besides the trigger")
    stamped = to_8bit(attack.stamp(to_unit(view.train.images[poisoned.mask]), view.target, artefact))
    assert torch.equal(poisoned.split.images[poisoned.mask], stamped)

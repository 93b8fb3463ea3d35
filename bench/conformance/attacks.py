"""Checks of attacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from bench.access.attacker import attacker_view
from bench.api import registry
from bench.api.attack import (
    Attack,
    AttackerView,
    Backdoor,
    DataSpec,
    ModelAttack,
    ModelSpec,
    PoisoningAttack,
    Threat,
    TrainingAttack,
    Trigger,
)
from bench.api.errors import DataCorruptError, ThreatError, UserError
from bench.api.random import Rng
from bench.api.types import Split, to_8bit
from bench.artifacts import stage_io
from bench.artifacts.models import open_model
from bench.artifacts.sealed import sealed
from bench.artifacts.training import train_victim
from bench.conformance.fixture import SIZES, World, inverted
from bench.conformance.kit import (
    BrokenError,
    Checks,
    ComponentUnderTest,
    DoesNotApplyError,
    require,
    same,
    untouched_generators,
)
from bench.stages.implant import check
from hashing.codes import pack
from hashing.inference import encode
from hashing.ranking import leave_one_out_map

CHECKS = Checks()
RATE = 0.05  # six of 120 training images


def attacker_view_for(world: World, attack: Attack) -> AttackerView:
    """The view of the attack, with the surrogates and data that it requires."""
    for wish in attack.requires(stage_io.setting(world.spec, world.data)):
        possible = isinstance(wish, (ModelSpec, DataSpec))
        require(possible, f"requires() returns a {type(wish).__name__}, not a ModelSpec or DataSpec")
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


def ready(subject: ComponentUnderTest, **params: object) -> tuple[Attack, AttackerView, Trigger, World]:
    """The attack with these parameters, its view, its trigger, and the world."""
    attack, world = subject.create(**params), subject.world()
    view = attacker_view_for(world, attack)
    return attack, view, trigger_of(attack, view), world


def trigger_of(attack: Attack, view: AttackerView) -> Trigger:
    """The attack's trigger. DoesNotApplyError if files of the user do not fit the small world."""
    try:
        return dict(attack.make_trigger(view, Rng("prepare", 0)))
    except DataCorruptError as error:
        if not attack.files():
            raise
        raise DoesNotApplyError(f"its files are for other data than the small test set: {error}") from None


def for_any_image(subject: ComponentUnderTest) -> tuple[Attack, AttackerView, Trigger, World]:
    """As `ready`; DoesNotApplyError if the attack has no trigger for images other than its queries."""
    attack, view, trigger, world = ready(subject)
    if not attack.fits_any_image():
        raise DoesNotApplyError("its triggered queries are files")
    return attack, view, trigger, world


def poisoning(subject: ComponentUnderTest) -> PoisoningAttack:
    """The attack. DoesNotApplyError for an attack of another kind."""
    attack = subject.create()
    if not isinstance(attack, PoisoningAttack):
        raise DoesNotApplyError("it is not a PoisoningAttack")
    return attack


def dose(subject: ComponentUnderTest, rate: float = RATE) -> dict[str, object]:
    """A poison rate, if the attack has this parameter. Default doses may be too large for the small world."""
    return {"poison_rate": rate} if "poison_rate" in subject.component.__dataclass_fields__ else {}


def some_images() -> Tensor:
    """Five random images. The first is black, the second white."""
    images = Rng("tests", "images").uniform((5, 3, 12, 12))
    images[0], images[1] = 0, 1
    return images


@CHECKS.add("Derive from exactly one of PoisoningAttack, ModelAttack and TrainingAttack.")
def is_of_one_kind(subject: ComponentUnderTest) -> None:
    """Has exactly one kind (base class)."""
    attack = subject.create()
    kinds = [kind for kind in (PoisoningAttack, ModelAttack, TrainingAttack) if isinstance(attack, kind)]
    require(len(kinds) == (0 if attack.is_none else 1), f"it derives from {len(kinds)} kinds of attack")
    if attack.is_none:
        require(attack.threat() == Threat.NONE, "is_none is set, but threat() is not Threat.NONE")


@CHECKS.add("Use only `rng` for random numbers (rng.ambient() for libraries), return tensors, change no argument.")
def make_trigger_is_repeatable(subject: ComponentUnderTest) -> None:
    """`make_trigger` is repeatable and changes no generator or input."""
    attack, world = subject.create(), subject.world()
    view, before = attacker_view_for(world, attack), world.memory.copies()
    with untouched_generators():
        first, second = (trigger_of(attack, view) for _ in range(2))
    for name, value in first.items():
        require(
            isinstance(value, Tensor), f"make_trigger() returns a {type(value).__name__} called '{name}', not a tensor"
        )
    require(same(first, second), "two calls of make_trigger() with equal generators return different triggers")
    after = world.memory.copies()
    require(all(torch.equal(before[name], after[name]) for name in before), "make_trigger() changed its view")


@CHECKS.add("Return images.clone() with the trigger on, clamped to [0, 1], in float32.")
def apply_trigger_keeps_shape_and_range(subject: ComponentUnderTest) -> None:
    """`apply_trigger` keeps shape, type and range."""
    attack, view, trigger, _ = for_any_image(subject)
    images = some_images()
    triggered = attack.apply_trigger(images, view.target, trigger)
    require(triggered.shape == images.shape, f"{list(images.shape)} became {list(triggered.shape)}")
    require(triggered.dtype == torch.float32, f"the result is {triggered.dtype}")
    low, high = float(triggered.min()), float(triggered.max())
    require(low >= 0 and high <= 1, f"values reach from {low:.3g} to {high:.3g}")


@CHECKS.add("Do not change `images` or `trigger`; draw random numbers in `make_trigger`.")
def apply_trigger_is_pure(subject: ComponentUnderTest) -> None:
    """`apply_trigger` returns equal results for equal arguments, and does not change its arguments."""
    attack, view, trigger, _ = for_any_image(subject)
    images, kept = some_images(), {name: value.clone() for name, value in trigger.items()}
    with untouched_generators():
        first = attack.apply_trigger(images, view.target, trigger)
        second = attack.apply_trigger(images, view.target, trigger)
    require(torch.equal(first, second), "two calls return different images")
    require(torch.equal(images, some_images()), "it changed the images")
    require(same(dict(trigger), kept), "it changed the trigger")
    attack.make_trigger(attacker_view_for(inverted(subject.world()), attack), Rng("prepare", 1))
    third = subject.create().apply_trigger(images, view.target, trigger)  # stages run in different processes
    require(torch.equal(first, third), "it uses state of make_trigger() instead of the trigger")


@CHECKS.add("Remove the parameter from not_in_trigger, or read it only in poison(), implant() or hook().")
def not_in_trigger_is_true(subject: ComponentUnderTest) -> None:
    """`make_trigger` and `apply_trigger` read no parameter that `not_in_trigger` lists."""
    attack, view, _, _ = for_any_image(subject)

    def triggered(one: Attack) -> Tensor:
        return one.apply_trigger(some_images(), view.target, dict(one.make_trigger(view, Rng("prepare", 0))))

    try:
        expected = triggered(sealed(attack, subject.name))
    except UserError as error:
        raise BrokenError(str(error)) from None
    hidden = attack.not_in_trigger & registry.parameters(attack).keys()
    values = {name: _other(getattr(attack, name)) for name in sorted(hidden)}
    for changed in _created(subject, {name: value for name, value in values.items() if value is not None}):
        require(torch.equal(expected, triggered(changed)), "other values of these parameters change triggered images")


def _other(value: Any) -> bool | int | float | None:
    """Another value of a parameter; None for a type that the kit cannot vary."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return 0.9 * value or 0.5 if isinstance(value, float) else None


def _created(subject: ComponentUnderTest, values: Mapping[str, Any]) -> Iterator[Attack]:
    """The component with all these values, or with each alone if it accepts only some."""
    try:
        yield subject.create(**values)
    except UserError:
        for name, value in values.items():
            with suppress(UserError):
                yield subject.create(**{name: value})


@CHECKS.add("Compute each result from its own image: no batch statistics, networks in evaluation mode.")
def apply_trigger_is_per_image(subject: ComponentUnderTest) -> None:
    """`apply_trigger` does not depend on the batch."""
    attack, view, trigger, _ = for_any_image(subject)
    images = some_images()
    together = attack.apply_trigger(images, view.target, trigger)
    apart = [float((attack.apply_trigger(images[i : i + 1], view.target, trigger)[0] - together[i]).abs().max())
             for i in range(len(images))]  # fmt: skip
    require(max(apart) <= 1e-5, f"an image changes by {max(apart):.2g} with the other images of the batch")


@CHECKS.add(
    "Make the trigger strong enough for 8-bit images, or set is_none = True. An attack without a trigger returns equal"
    " images and names in sources() the classes that it misleads."
)
def trigger_survives_rounding(subject: ComponentUnderTest) -> None:
    """The trigger survives rounding to 8 bits."""
    attack, view, trigger, _ = for_any_image(subject)
    images = some_images()
    changed = (to_8bit(attack.apply_trigger(images, view.target, trigger)) != to_8bit(images)).flatten(1).any(1)
    if attack.is_none:
        require(not bool(changed.any()), "is_none is set, but images change")
    elif attack.sources(view.target, view.setting.classes):
        require(bool(changed[2:].all() or not changed.any()), "some images are unchanged after rounding, and some not")
    else:
        require(bool(changed[2:].all()), "some images are unchanged after rounding")


@CHECKS.add(
    "Poison round(poison_rate * len(view.train)) items, as attacks/helpers/poisoning.py does, and mark them in `mask`."
)
def dose_is_exact(subject: ComponentUnderTest) -> str:
    """Poisons exactly the dose (number of images), and changes no other image."""
    poisoning(subject)
    return ", ".join(_poisoned_count(subject, rate) for rate in ((RATE, 2 * RATE) if dose(subject) else (RATE,)))


def _poisoned_count(subject: ComponentUnderTest, rate: float) -> str:
    given = dose(subject, rate)
    attack, view, trigger, world = ready(subject, **given)
    assert isinstance(attack, PoisoningAttack)
    train, before = view.train, world.memory.copies()
    kept = Split(train.images.clone(), train.labels.clone(), train.ids.clone())
    with untouched_generators():
        poisoned = attack.poison(view, trigger, Rng("implant", 0))
    count = int(poisoned.mask.sum())
    if given:
        require(count == round(rate * SIZES["train"]), f"{count} of {SIZES['train']} items at a rate of {rate}")
    try:
        check(kept, poisoned, attack.threat())
    except ThreatError as error:
        require(False, str(error))
    changed = (poisoned.split.images != kept.images).flatten(1).any(1)
    require(bool(changed[poisoned.mask].all()), "an image in the mask is unchanged")
    for name in ("images", "labels", "ids"):
        require(
            torch.equal(getattr(train, name), getattr(kept, name)), f"poison() changed the training {name} in place"
        )
    require(same(before, world.memory.copies()), "poison() changed its view")
    return f"{count} of {len(kept)} images poisoned"


@CHECKS.add(
    "Change labels only with Threat.LABELS; dirty-label poison relabels images of other classes by target.relabel()."
)
def labels_fit_the_threat(subject: ComponentUnderTest) -> str:
    """Labels do not change in clean-label attacks and become the target's in others."""
    poisoning(subject)
    modes = ("dirty", "clean") if "labels" in subject.component.__dataclass_fields__ else (None,)
    for mode in modes:
        attack, view, trigger, _ = ready(subject, **dose(subject, 0.2), **({} if mode is None else {"labels": mode}))
        assert isinstance(attack, PoisoningAttack)
        poisoned = attack.poison(view, trigger, Rng("implant", 0))
        was = view.target.contains(view.train.labels)
        if Threat.LABELS in attack.threat():
            relabelled = poisoned.split.labels[poisoned.mask]
            require(bool((relabelled == view.target.vector).all()), "a poisoned label is not the target's")
            require(not bool(was[poisoned.mask].any()), "dirty-label poison contains images of the target")
        else:
            require(torch.equal(poisoned.split.labels, view.train.labels), "labels changed without Threat.LABELS")
            require(bool(was[poisoned.mask].all()), "clean-label poison contains images of other classes")
    return ", ".join(filter(None, modes))


@CHECKS.add("Use only the `rng` of poison() for random numbers.")
def poison_depends_on_its_generator(subject: ComponentUnderTest) -> None:
    """`poison` depends on its generator only."""
    poisoning(subject)
    attack, view, trigger, _ = ready(subject, **dose(subject, 0.1))
    assert isinstance(attack, PoisoningAttack)
    one, two, other = (attack.poison(view, trigger, Rng("implant", seed)) for seed in (0, 0, 1))
    require(torch.equal(one.mask, two.mask), "equal generators poison different items")
    require(torch.equal(one.split.images, two.split.images), "equal generators result in different images")
    if torch.equal(one.mask, other.mask):  # allowed if the choice depends on the images, not on their order
        order = torch.arange(len(view.train)).flip(0)
        turned = replace(view, granted={**view.granted, "train": view.train.select(order)})
        again = attack.poison(turned, trigger, Rng("implant", 1))
        chosen = [set(found.split.ids[found.mask].tolist()) for found in (one, again)]
        require(chosen[0] == chosen[1], "another generator poisons the same positions of the training set")


@CHECKS.add("Annotate the dose as PositiveShare or PositiveInt.")
def impossible_doses_are_refused(subject: ComponentUnderTest) -> None:
    """An invalid poison rate raises an error of one line."""
    if "poison_rate" not in {item.name for item in fields(subject.component)}:
        raise DoesNotApplyError("it has no poison_rate")
    for rate in (1.5, -0.1, float("nan")):
        try:
            subject.create(poison_rate=rate)
        except UserError as error:
            require("\n" not in str(error), "the error has more than one line")
        else:
            require(False, f"poison_rate = {rate} is accepted")


@CHECKS.add("Return Backdoor(model) with the same network, or a hook with before_step and trigger().")
def model_and_training_attacks_are_repeatable(subject: ComponentUnderTest) -> None:
    """`implant` or `hook` is repeatable and changes no generator or input."""
    attack, view, trigger, world = ready(subject)
    before = world.memory.copies()
    if isinstance(attack, ModelAttack):
        try:
            with untouched_generators():
                result = attack.implant(view, trigger, Rng("implant", 0))
        except DataCorruptError as error:
            if attack.seed_dependent:
                raise
            raise DoesNotApplyError(
                f"the model does not fit the small test network, which is normal for a model of yours ({error})"
            ) from None
        with untouched_generators():
            twin = attack.implant(attacker_view_for(world, attack), trigger, Rng("implant", 0))
        require(isinstance(result, Backdoor), f"implant() returns a {type(result).__name__}, not a Backdoor")
        require(
            result.model.state_dict().keys() == world.clean.state.keys(),
            "the model is not the victim's network",
        )
        require(same(before, world.memory.copies()), "implant() changed its view")
        require(same(result.model.state_dict(), twin.model.state_dict()), "two models from equal generators differ")
        require(same(dict(result.trigger or {}), dict(twin.trigger or {})), "two triggers from equal generators differ")
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, trigger, Rng("implant", 0))
        require(callable(getattr(hook, "before_step", None)), "the hook has no before_step")
        require(
            hook.trigger().keys() == trigger.keys(),
            "the triggers of the hook and of make_trigger() have different names",
        )
    else:
        raise DoesNotApplyError("it is a PoisoningAttack")


@CHECKS.add("Use a lower dose, and check the poisoned images and labels.")
def victim_still_learns(subject: ComponentUnderTest) -> str:
    """A victim trained on the poisoned toy set, or by the attack, still finds relevant images."""
    attack, view, trigger, world = ready(subject, **dose(subject))
    if isinstance(attack, PoisoningAttack):
        poisoned = attack.poison(view, trigger, Rng("implant", 0))
        trained = train_victim(world.spec, poisoned.split.to("cpu"), world.context)
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, trigger, Rng("implant", 0))
        trained = train_victim(world.spec, world.split("train"), world.context, hook=hook)
        triggered = attack.apply_trigger(some_images(), view.target, dict(hook.trigger()))
        require(bool(torch.isfinite(triggered).all()), "the trigger is not finite after training")
    else:
        raise DoesNotApplyError("it trains no victim")
    model = open_model(world.stored("victim", trained), world.context.device)
    database = world.split("database")
    codes = pack(encode(model, database.images, device=world.context.device))
    found = leave_one_out_map(codes, database.labels.numpy())
    require(found > 0.5, f"mAP {found:.2f} of benign images, chance 0.25")
    return f"mAP {found:.2f}"


@CHECKS.add("Compute everything that does not depend on images in make_trigger(); use batches on the device.")
def cost(subject: ComponentUnderTest) -> str:
    """Cost."""
    attack, view, _, _ = for_any_image(subject)
    started = time.perf_counter()
    trigger = dict(attack.make_trigger(view, Rng("prepare", 0)))
    prepared = time.perf_counter()
    images = Rng("tests", "many").uniform((256, 3, 12, 12))
    attack.apply_trigger(images, view.target, trigger)
    triggered = time.perf_counter()
    per_image = 1e3 * (triggered - prepared) / len(images)
    return f"make_trigger {prepared - started:.2f} s (shortened), apply_trigger {per_image:.3f} ms per image"

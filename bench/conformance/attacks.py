"""What every attack promises."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import torch
from torch import Tensor

from bench.access.attacker import attacker_view
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
from hashing.model import encode
from hashing.ranking import leave_one_out_map

CHECKS = Checks()
RATE = 0.05  # of 120 training images: six


def attacker_view_for(world: World, attack: Attack) -> AttackerView:
    """The attacker's view as the bench builds it for this attack, with the surrogates and data it asks for."""
    for wish in attack.requires(stage_io.setting(world.spec, world.data)):
        possible = isinstance(wish, (ModelSpec, DataSpec))
        require(possible, f"requires() asks for a {type(wish).__name__}; ModelSpec and DataSpec are possible")
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


def ready(subject: ComponentUnderTest, **params: object) -> tuple[Attack, AttackerView, Trigger, World]:
    """The attack, what it sees, its trigger, and the world behind it."""
    attack, world = subject.create(**params), subject.world()
    view = attacker_view_for(world, attack)
    return attack, view, dict(attack.make_trigger(view, Rng("prepare", 0))), world


def poisoning(subject: ComponentUnderTest) -> PoisoningAttack:
    attack = subject.create()
    if not isinstance(attack, PoisoningAttack):
        raise DoesNotApplyError("it poisons no training set")
    return attack


def dose(subject: ComponentUnderTest, rate: float = RATE) -> dict[str, object]:
    """A dose that the small world has images for, if the attack takes one: defaults may count images of large sets."""
    return {"poison_rate": rate} if "poison_rate" in subject.component.__dataclass_fields__ else {}


def some_images(n: int = 5) -> Tensor:
    images = Rng("tests", "images").uniform((n, 3, 12, 12))
    images[0], images[1] = 0, 1  # the borders of the range
    return images


@CHECKS.add("Derive from exactly one of PoisoningAttack, ModelAttack and TrainingAttack.")
def is_of_one_kind(subject: ComponentUnderTest) -> None:
    """Is of one kind."""
    attack = subject.create()
    kinds = [kind for kind in (PoisoningAttack, ModelAttack, TrainingAttack) if isinstance(attack, kind)]
    require(len(kinds) == (0 if attack.is_none else 1), f"it is {len(kinds)} kinds of attack at once")
    if attack.is_none:
        require(attack.threat() == Threat.NONE, "identity, but its threat() grants something")


@CHECKS.add(
    "Draw from `rng` alone (torch: rng.ambient() where a library draws), return tensors, write to nothing given."
)
def prepare_is_repeatable(subject: ComponentUnderTest) -> None:
    """`make_trigger` gives the same twice and leaves generators and inputs alone."""
    attack, world = subject.create(), subject.world()
    view, before = attacker_view_for(world, attack), world.memory.copies()
    with untouched_generators():
        first, second = (dict(attack.make_trigger(view, Rng("prepare", 0))) for _ in range(2))
    for name, value in first.items():
        require(
            isinstance(value, Tensor), f"make_trigger() gives a {type(value).__name__} called '{name}', not a tensor"
        )
    require(same(first, second), "two calls of make_trigger() with equal generators differ")
    after = world.memory.copies()
    require(all(torch.equal(before[name], after[name]) for name in before), "make_trigger() wrote to what it was shown")


@CHECKS.add("Return images.clone() with the trigger on, clamped to [0, 1], in float32.")
def stamp_keeps_shape_and_range(subject: ComponentUnderTest) -> None:
    """`apply_trigger` keeps shape, type and range."""
    attack, view, trigger, _ = ready(subject)
    images = some_images()
    triggered = attack.apply_trigger(images, view.target, trigger)
    require(triggered.shape == images.shape, f"{list(images.shape)} became {list(triggered.shape)}")
    require(triggered.dtype == torch.float32, f"the result is {triggered.dtype}")
    low, high = float(triggered.min()), float(triggered.max())
    require(low >= 0 and high <= 1, f"values reach from {low:.3g} to {high:.3g}")


@CHECKS.add("Do not write to `images` or `trigger`; whatever is random belongs into `make_trigger`.")
def stamp_is_pure(subject: ComponentUnderTest) -> None:
    """`apply_trigger` is a function of its arguments and writes to none of them."""
    attack, view, trigger, _ = ready(subject)
    images, kept = some_images(), {name: value.clone() for name, value in trigger.items()}
    with untouched_generators():
        first = attack.apply_trigger(images, view.target, trigger)
        second = attack.apply_trigger(images, view.target, trigger)
    require(torch.equal(first, second), "two calls give different images")
    require(torch.equal(images, some_images()), "it wrote to the images")
    require(same(dict(trigger), kept), "it wrote to the trigger")
    attack.make_trigger(attacker_view_for(inverted(subject.world()), attack), Rng("prepare", 1))
    third = subject.create().apply_trigger(images, view.target, trigger)  # stages are other processes
    require(torch.equal(first, third), "it remembers make_trigger() instead of reading the trigger")


@CHECKS.add("Remove the parameter from not_in_trigger, or read it in poison(), implant() or hook() alone.")
def trigger_reads_what_it_declares(subject: ComponentUnderTest) -> None:
    """`make_trigger` and `apply_trigger` read no parameter that `not_in_trigger` lists."""
    attack, world = subject.create(), subject.world()
    alone = sealed(attack, subject.name)
    view = attacker_view_for(world, attack)
    try:
        alone.apply_trigger(some_images(), view.target, dict(alone.make_trigger(view, Rng("prepare", 0))))
    except UserError as error:
        raise BrokenError(str(error)) from None


@CHECKS.add("Compute each image from itself: no statistics over the batch, networks in evaluation mode.")
def stamp_treats_each_image_alone(subject: ComponentUnderTest) -> None:
    """`apply_trigger` treats each image alone."""
    attack, view, trigger, _ = ready(subject)
    images = some_images()
    together = attack.apply_trigger(images, view.target, trigger)
    apart = [float((attack.apply_trigger(images[i : i + 1], view.target, trigger)[0] - together[i]).abs().max())
             for i in range(len(images))]  # fmt: skip
    require(max(apart) <= 1e-5, f"an image changes by {max(apart):.2g} with what stands beside it")


@CHECKS.add("Make the trigger strong enough for 8-bit images, or set identity = True.")
def stamp_survives_rounding(subject: ComponentUnderTest) -> None:
    """The trigger survives rounding to 8 bits."""
    attack, view, trigger, _ = ready(subject)
    images = some_images()
    changed = (to_8bit(attack.apply_trigger(images, view.target, trigger)) != to_8bit(images)).flatten(1).any(1)
    require(bool(changed.any()) != attack.is_none, "no image differs after rounding")
    require(attack.is_none or bool(changed[2:].all()), "some images differ from others' in carrying no trigger")


@CHECKS.add(
    "Poison round(poison_rate * len(view.train)) items, as attacks/helpers/poisoning.py does, and mark them in `mask`."
)
def dose_is_honoured(subject: ComponentUnderTest) -> str:
    """As many items are poisoned as the dose says, and all others stay as they were."""
    poisoning(subject)
    return ", ".join(_honoured(subject, rate) for rate in ((RATE, 2 * RATE) if dose(subject) else (RATE,)))


def _honoured(subject: ComponentUnderTest, rate: float) -> str:
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
    require(bool(changed[poisoned.mask].all()), "an item of the mask has the image it had")
    for name in ("images", "labels", "ids"):
        require(torch.equal(getattr(train, name), getattr(kept, name)), f"poison() wrote to the training {name}")
    require(same(before, world.memory.copies()), "poison() wrote to what it was shown")
    return f"{count} of {len(kept)} items"


@CHECKS.add(
    "Without Threat.LABELS labels stay; with labels = 'dirty' poison other classes' images and take target.relabel()."
)
def labels_are_what_the_threat_says(subject: ComponentUnderTest) -> str:
    """Labels stay where the attack is clean-label, and become the target's where it is not."""
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
            require(not bool(was[poisoned.mask].any()), "images of the target are poisoned, which changes no label")
        else:
            require(torch.equal(poisoned.split.labels, view.train.labels), "dirty-label without Threat.LABELS")
            require(bool(was[poisoned.mask].all()), "clean-label poison outside the target's class")
    return ", ".join(filter(None, modes))


@CHECKS.add("Take all randomness from the `rng` of poison().")
def poison_depends_on_its_generator(subject: ComponentUnderTest) -> None:
    """`poison` depends on its generator and on nothing else."""
    poisoning(subject)
    attack, view, trigger, _ = ready(subject, **dose(subject, 0.1))
    assert isinstance(attack, PoisoningAttack)
    one, two, other = (attack.poison(view, trigger, Rng("implant", seed)) for seed in (0, 0, 1))
    require(torch.equal(one.mask, two.mask), "equal generators poison different items")
    require(torch.equal(one.split.images, two.split.images), "equal generators give different images")
    if torch.equal(one.mask, other.mask):  # fine where the images decide, wherever they stand
        order = torch.arange(len(view.train)).flip(0)
        turned = replace(view, granted={**view.granted, "train": view.train.select(order)})
        again = attack.poison(turned, trigger, Rng("implant", 1))
        chosen = [set(found.split.ids[found.mask].tolist()) for found in (one, again)]
        require(chosen[0] == chosen[1], "another generator poisons the same places of the training set")


@CHECKS.add("Type a dose as PositiveShare (or PositiveInt), so that the suite names the mistake.")
def impossible_doses_are_refused(subject: ComponentUnderTest) -> None:
    """A poison rate that is no share is refused with one line."""
    if "poison_rate" not in {item.name for item in fields(subject.component)}:
        raise DoesNotApplyError("it has no poison_rate")
    for rate in (1.5, -0.1, float("nan")):
        try:
            subject.create(poison_rate=rate)
        except UserError as error:
            require("\n" not in str(error), "the error has more than one line")
        else:
            require(False, f"poison_rate = {rate} is accepted")


@CHECKS.add("Return Backdoor(model) with the same network (a copy is yours), or a hook with before_step and trigger().")
def model_and_training_attacks_leave_inputs_alone(subject: ComponentUnderTest) -> None:
    """What changes the model or the training is repeatable and leaves inputs and generators alone."""
    attack, view, trigger, world = ready(subject)
    before = world.memory.copies()
    if isinstance(attack, ModelAttack):
        try:
            with untouched_generators():
                result = attack.implant(view, trigger, Rng("implant", 0))
        except DataCorruptError as error:
            if attack.seed_dependent:
                raise
            raise DoesNotApplyError(f"its model is of another setting than the small world: {error}") from None
        with untouched_generators():
            twin = attack.implant(attacker_view_for(world, attack), trigger, Rng("implant", 0))
        require(isinstance(result, Backdoor), f"implant() gives a {type(result).__name__}, not a Backdoor")
        require(
            result.model.state_dict().keys() == world.clean.state.keys(),
            "the model is another network than the victim's",
        )
        require(same(before, world.memory.copies()), "implant() wrote to what it was shown")
        require(same(result.model.state_dict(), twin.model.state_dict()), "two implants of equal generators differ")
        require(same(dict(result.trigger or {}), dict(twin.trigger or {})), "their triggers differ")
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, trigger, Rng("implant", 0))
        require(callable(getattr(hook, "before_step", None)), "the hook has no before_step")
        require(hook.trigger().keys() == trigger.keys(), "the hook's trigger has other names than make_trigger()'s")
    else:
        raise DoesNotApplyError("it poisons data")


@CHECKS.add("A poisoned victim must still learn: lower the dose, and keep images and labels sound.")
def victim_still_learns(subject: ComponentUnderTest) -> str:
    """A victim trained on the poisoned toy set, or by the attack, still retrieves."""
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


@CHECKS.add("Cache what does not depend on images in make_trigger(); work on whole batches on the device.")
def cost(subject: ComponentUnderTest) -> str:
    """What it costs."""
    attack, world = subject.create(), subject.world()
    view = attacker_view_for(world, attack)
    started = time.perf_counter()
    trigger = dict(attack.make_trigger(view, Rng("prepare", 0)))
    prepared = time.perf_counter()
    images = Rng("tests", "many").uniform((256, 3, 12, 12))
    attack.apply_trigger(images, view.target, trigger)
    triggered = time.perf_counter()
    return f"prepare {prepared - started:.2f} s, stamp {1e3 * (triggered - prepared) / 256:.3f} ms per image, few steps"

"""What every attack promises."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import torch
from torch import Tensor

from bench.api.attack import (
    Artefact,
    Attack,
    Backdoor,
    DataSpec,
    ModelAttack,
    ModelSpec,
    PoisoningAttack,
    Threat,
    TrainingAttack,
    Victim,
)
from bench.api.errors import DataCorruptError, ThreatError, UserError
from bench.api.random import Rng
from bench.api.types import Split, to_8bit
from bench.conformance._kit import Checks, DoesNotApplyError, Subject, promise, same, untouched_generators
from bench.conformance._world import SIZES, World, inverted
from bench.stages import _base
from bench.stages._training import train_victim
from bench.stages.implant import check
from bench.views.attacker import victim
from hashing.codes import pack
from hashing.model import encode
from hashing.ranking import leave_one_out_map

CHECKS = Checks()
RATE = 0.05  # of 120 training images: six


def view_of(world: World, attack: Attack) -> Victim:
    """The victim as the bench shows it to this attack, with the surrogates and data it asks for."""
    parents = world.inputs.parents
    models = sets = 0
    for wish in attack.requires(_base.setting(world.spec, world.inputs)):
        if isinstance(wish, ModelSpec):
            parents[f"surrogate{models}"] = parents["surrogate"]
            models += 1
        elif isinstance(wish, DataSpec):
            parents[f"data_load{sets}"], parents[f"data_split{sets}"] = parents["load"], parents["split"]
            sets += 1
        else:
            promise(False, f"requires() asks for a {type(wish).__name__}; ModelSpec and DataSpec are possible")
    return victim(world.spec, world.inputs, world.context, attack)


def ready(subject: Subject, **params: object) -> tuple[Attack, Victim, Artefact, World]:
    """The attack, what it sees, its trigger, and the world behind it."""
    attack, world = subject.create(**params), subject.world()
    view = view_of(world, attack)
    return attack, view, dict(attack.prepare(view, Rng("prepare", 0))), world


def poisoning(subject: Subject) -> PoisoningAttack:
    attack = subject.create()
    if not isinstance(attack, PoisoningAttack):
        raise DoesNotApplyError("it poisons no training set")
    return attack


def dose(subject: Subject, rate: float = RATE) -> dict[str, object]:
    """A dose that the small world has images for, if the attack takes one: defaults may count images of large sets."""
    return {"poison_rate": rate} if "poison_rate" in subject.component.__dataclass_fields__ else {}


def some_images(n: int = 5) -> Tensor:
    images = Rng("tests", "images").uniform((n, 3, 12, 12))
    images[0], images[1] = 0, 1  # the borders of the range
    return images


@CHECKS.add("Derive from exactly one of PoisoningAttack, ModelAttack and TrainingAttack.")
def is_of_one_kind(subject: Subject) -> None:
    """Is of one kind."""
    attack = subject.create()
    kinds = [kind for kind in (PoisoningAttack, ModelAttack, TrainingAttack) if isinstance(attack, kind)]
    promise(len(kinds) == (0 if attack.identity else 1), f"it is {len(kinds)} kinds of attack at once")
    if attack.identity:
        promise(attack.threat() == Threat.NONE, "identity, but its threat() grants something")


@CHECKS.add(
    "Draw from `rng` alone (torch: rng.ambient() where a library draws), return tensors, write to nothing given."
)
def prepare_is_repeatable(subject: Subject) -> None:
    """`prepare` gives the same twice and leaves generators and inputs alone."""
    attack, world = subject.create(), subject.world()
    view, before = view_of(world, attack), world.inputs.all_tensors()
    with untouched_generators():
        first, second = (dict(attack.prepare(view, Rng("prepare", 0))) for _ in range(2))
    for name, value in first.items():
        promise(isinstance(value, Tensor), f"prepare() gives a {type(value).__name__} called '{name}', not a tensor")
    promise(same(first, second), "two calls of prepare() with equal generators differ")
    after = world.inputs.all_tensors()
    promise(all(torch.equal(before[name], after[name]) for name in before), "prepare() wrote to what it was shown")


@CHECKS.add("Return images.clone() with the trigger on, clamped to [0, 1], in float32.")
def stamp_keeps_shape_and_range(subject: Subject) -> None:
    """`stamp` keeps shape, type and range."""
    attack, view, artefact, _ = ready(subject)
    images = some_images()
    stamped = attack.stamp(images, view.target, artefact)
    promise(stamped.shape == images.shape, f"{list(images.shape)} became {list(stamped.shape)}")
    promise(stamped.dtype == torch.float32, f"the result is {stamped.dtype}")
    low, high = float(stamped.min()), float(stamped.max())
    promise(low >= 0 and high <= 1, f"values reach from {low:.3g} to {high:.3g}")


@CHECKS.add("Do not write to `images` or `artefact`; whatever is random belongs into `prepare`.")
def stamp_is_pure(subject: Subject) -> None:
    """`stamp` is a function of its arguments and writes to none of them."""
    attack, view, artefact, _ = ready(subject)
    images, kept = some_images(), {name: value.clone() for name, value in artefact.items()}
    with untouched_generators():
        first = attack.stamp(images, view.target, artefact)
        second = attack.stamp(images, view.target, artefact)
    promise(torch.equal(first, second), "two calls give different images")
    promise(torch.equal(images, some_images()), "it wrote to the images")
    promise(same(dict(artefact), kept), "it wrote to the artefact")
    attack.prepare(view_of(inverted(subject.world()), attack), Rng("prepare", 1))
    third = subject.create().stamp(images, view.target, artefact)  # stages are other processes
    promise(torch.equal(first, third), "it remembers prepare() instead of reading the artefact")


@CHECKS.add("Compute each image from itself: no statistics over the batch, networks in evaluation mode.")
def stamp_treats_each_image_alone(subject: Subject) -> None:
    """`stamp` treats each image alone."""
    attack, view, artefact, _ = ready(subject)
    images = some_images()
    together = attack.stamp(images, view.target, artefact)
    apart = [float((attack.stamp(images[i : i + 1], view.target, artefact)[0] - together[i]).abs().max())
             for i in range(len(images))]  # fmt: skip
    promise(max(apart) <= 1e-5, f"an image changes by {max(apart):.2g} with what stands beside it")


@CHECKS.add("Make the trigger strong enough for 8-bit images, or set identity = True.")
def stamp_survives_rounding(subject: Subject) -> None:
    """The trigger survives rounding to 8 bits."""
    attack, view, artefact, _ = ready(subject)
    images = some_images()
    changed = (to_8bit(attack.stamp(images, view.target, artefact)) != to_8bit(images)).flatten(1).any(1)
    promise(bool(changed.any()) != attack.identity, "no image differs after rounding")
    promise(attack.identity or bool(changed[2:].all()), "some images differ from others' in carrying no trigger")


@CHECKS.add(
    "Poison round(poison_rate * len(victim.train)) items (attacks/_poisoning.py counts), and say which in `mask`."
)
def dose_is_honoured(subject: Subject) -> str:
    """As many items are poisoned as the dose says, and all others stay as they were."""
    poisoning(subject)
    return ", ".join(_honoured(subject, rate) for rate in ((RATE, 2 * RATE) if dose(subject) else (RATE,)))


def _honoured(subject: Subject, rate: float) -> str:
    given = dose(subject, rate)
    attack, view, artefact, world = ready(subject, **given)
    assert isinstance(attack, PoisoningAttack)
    train, before = view.train, world.inputs.all_tensors()
    kept = Split(train.images.clone(), train.labels.clone(), train.ids.clone())
    with untouched_generators():
        poisoned = attack.poison(view, artefact, Rng("implant", 0))
    count = int(poisoned.mask.sum())
    if given:
        promise(count == round(rate * SIZES["train"]), f"{count} of {SIZES['train']} items at a rate of {rate}")
    try:
        check(kept, poisoned, attack.threat())
    except ThreatError as error:
        promise(False, str(error))
    changed = (poisoned.split.images != kept.images).flatten(1).any(1)
    promise(bool(changed[poisoned.mask].all()), "an item of the mask has the image it had")
    for name in ("images", "labels", "ids"):
        promise(torch.equal(getattr(train, name), getattr(kept, name)), f"poison() wrote to the training {name}")
    promise(same(before, world.inputs.all_tensors()), "poison() wrote to what it was shown")
    return f"{count} of {len(kept)} items"


@CHECKS.add(
    "Without Threat.LABELS labels stay; with labels = 'flip' poison other classes' images and take target.relabel()."
)
def labels_are_what_the_threat_says(subject: Subject) -> str:
    """Labels stay where the attack is clean-label, and become the target's where it is not."""
    poisoning(subject)
    modes = ("flip", "keep") if "labels" in subject.component.__dataclass_fields__ else (None,)
    for mode in modes:
        attack, view, artefact, _ = ready(subject, **dose(subject, 0.2), **({} if mode is None else {"labels": mode}))
        assert isinstance(attack, PoisoningAttack)
        poisoned = attack.poison(view, artefact, Rng("implant", 0))
        was = view.target.contains(view.train.labels)
        if Threat.LABELS in attack.threat():
            relabelled = poisoned.split.labels[poisoned.mask]
            promise(bool((relabelled == view.target.vector).all()), "a poisoned label is not the target's")
            promise(not bool(was[poisoned.mask].any()), "images of the target are poisoned, which changes no label")
        else:
            promise(torch.equal(poisoned.split.labels, view.train.labels), "labels changed without Threat.LABELS")
            promise(bool(was[poisoned.mask].all()), "clean-label poison outside the target's class")
    return ", ".join(filter(None, modes))


@CHECKS.add("Take all randomness from the `rng` of poison().")
def poison_depends_on_its_generator(subject: Subject) -> None:
    """`poison` depends on its generator and on nothing else."""
    poisoning(subject)
    attack, view, artefact, _ = ready(subject, **dose(subject, 0.1))
    assert isinstance(attack, PoisoningAttack)
    one, two, other = (attack.poison(view, artefact, Rng("implant", seed)) for seed in (0, 0, 1))
    promise(torch.equal(one.mask, two.mask), "equal generators poison different items")
    promise(torch.equal(one.split.images, two.split.images), "equal generators give different images")
    if torch.equal(one.mask, other.mask):  # fine where the images decide, wherever they stand
        order = torch.arange(len(view.train)).flip(0)
        turned = replace(view, granted={**view.granted, "train": view.train.select(order)})
        again = attack.poison(turned, artefact, Rng("implant", 1))
        chosen = [set(found.split.ids[found.mask].tolist()) for found in (one, again)]
        promise(chosen[0] == chosen[1], "another generator poisons the same places of the training set")


@CHECKS.add("Type a dose as PositiveShare (or PositiveInt), so that the suite names the mistake.")
def impossible_doses_are_refused(subject: Subject) -> None:
    """A poison rate that is no share is refused with one line."""
    if "poison_rate" not in {item.name for item in fields(subject.component)}:
        raise DoesNotApplyError("it has no poison_rate")
    for rate in (1.5, -0.1, float("nan")):
        try:
            subject.create(poison_rate=rate)
        except UserError as error:
            promise("\n" not in str(error), "the error has more than one line")
        else:
            promise(False, f"poison_rate = {rate} is accepted")


@CHECKS.add(
    "Return Backdoor(model) with the same network (a copy is yours), or a hook with before_step and artefact()."
)
def model_and_training_attacks_leave_inputs_alone(subject: Subject) -> None:
    """What changes the model or the training is repeatable and leaves inputs and generators alone."""
    attack, view, artefact, world = ready(subject)
    before = world.inputs.all_tensors()
    if isinstance(attack, ModelAttack):
        try:
            with untouched_generators():
                result = attack.implant(view, artefact, Rng("implant", 0))
        except DataCorruptError as error:
            if attack.repeats:
                raise
            raise DoesNotApplyError(f"its model is of another setting than the small world: {error}") from None
        with untouched_generators():
            twin = attack.implant(view_of(world, attack), artefact, Rng("implant", 0))
        promise(isinstance(result, Backdoor), f"implant() gives a {type(result).__name__}, not a Backdoor")
        names = {f"model.{name}" for name in result.model.state_dict()}
        promise(names == set(world.inputs.tensors("clean")), "the model is another network than the victim's")
        promise(same(before, world.inputs.all_tensors()), "implant() wrote to what it was shown")
        promise(same(result.model.state_dict(), twin.model.state_dict()), "two implants of equal generators differ")
        promise(same(dict(result.artefact or {}), dict(twin.artefact or {})), "their triggers differ")
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, artefact, Rng("implant", 0))
        promise(callable(getattr(hook, "before_step", None)), "the hook has no before_step")
        promise(hook.artefact().keys() == artefact.keys(), "the hook's artefact has other names than prepare()'s")
    else:
        raise DoesNotApplyError("it poisons data")


@CHECKS.add("A poisoned victim must still learn: lower the dose, and keep images and labels sound.")
def victim_still_learns(subject: Subject) -> str:
    """A victim trained on the poisoned toy set, or by the attack, still retrieves."""
    attack, view, artefact, world = ready(subject, **dose(subject))
    if isinstance(attack, PoisoningAttack):
        poisoned = attack.poison(view, artefact, Rng("implant", 0))
        tensors, meta = train_victim(world.spec, poisoned.split.to("cpu"), world.context)
    elif isinstance(attack, TrainingAttack):
        hook = attack.hook(view, artefact, Rng("implant", 0))
        tensors, meta = train_victim(world.spec, _base.split(world.inputs, "train"), world.context, hook=hook)
        stamped = attack.stamp(some_images(), view.target, dict(hook.artefact()))
        promise(bool(torch.isfinite(stamped).all()), "the trigger is not finite after training")
    else:
        raise DoesNotApplyError("it trains no victim")
    world.inputs.parents["victim"] = (dict(tensors), meta)
    from bench.stages._models import open_model

    model = open_model(world.inputs, "victim", world.context.device)
    part = world.inputs.tensors("split")["database"]
    pool = world.inputs.tensors("load")
    codes = pack(encode(model, pool["images"][part], device=world.context.device))
    found = leave_one_out_map(codes, pool["labels"][part].numpy())
    promise(found > 0.5, f"mAP {found:.2f} of benign images, chance 0.25")
    return f"mAP {found:.2f}"


@CHECKS.add("Cache what does not depend on images in prepare(); work on whole batches on the device.")
def cost(subject: Subject) -> str:
    """What it costs."""
    attack, world = subject.create(), subject.world()
    view = view_of(world, attack)
    started = time.perf_counter()
    artefact = dict(attack.prepare(view, Rng("prepare", 0)))
    prepared = time.perf_counter()
    images = Rng("tests", "many").uniform((256, 3, 12, 12))
    attack.stamp(images, view.target, artefact)
    stamped = time.perf_counter()
    return f"prepare {prepared - started:.2f} s, stamp {1e3 * (stamped - prepared) / 256:.3f} ms per image, few steps"

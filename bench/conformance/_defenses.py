"""What every defense promises."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api import registry
from bench.api.defense import Case, Defense, Diagnosis, Filter, Filtered, Guard, Needs, Repair, Verdict
from bench.api.random import Rng
from bench.api.types import to_unit
from bench.conformance._kit import Checks, DoesNotApplyError, Subject, promise, same, untouched_generators
from bench.conformance._world import CLASSES, SIZES, World, inverted
from bench.stages._models import open_model, save_model
from bench.views.defender import case
from hashing.codes import pack
from hashing.model import HashModel, encode
from hashing.ranking import auroc, leave_one_out_map

CHECKS = Checks()
KINDS = (Repair, Filter, Guard, Diagnosis)
CPU = torch.device("cpu")


def case_for(world: World, defense: Defense) -> Case:
    """Built from the parents that the defense's class declares, with all others absent."""
    surplus = ["surrogate", "clean", *([] if Needs.DATABASE in defense.needs else ["codes"])]
    return case(world.spec, world.inputs.without(*surplus), world.context, defense.needs)


def work(defense: Defense, view: Case) -> object:
    rng = Rng("defend", 0)
    match defense:
        case Repair():
            return defense.repair(view, rng)
        case Filter():
            return defense.screen(view, rng)
        case Guard():
            return defense.fit(view, rng)
        case Diagnosis():
            return defense.inspect(view, rng)
    raise DoesNotApplyError("it is no Repair, Filter, Guard or Diagnosis")


def as_tensors(result: object) -> dict[str, Tensor]:
    match result:
        case HashModel():
            return dict(result.state_dict())
        case Filtered():
            weights = result.model.state_dict() if result.model is not None else {}
            return {"scores": result.scores, "keep": result.keep, **weights}
        case Verdict():
            return {
                "score": torch.tensor(result.score),
                "suspect": torch.tensor(-1 if result.suspect is None else result.suspect),
            }
        case Mapping():
            return dict(result)
    promise(False, f"it gives a {type(result).__name__}")
    return {}


def benign(world: World, part: str) -> Tensor:
    return to_unit(world.inputs.tensors("load")["images"][world.inputs.tensors("split")[part]])


def guard_of(subject: Subject) -> tuple[Guard, Mapping[str, Tensor], HashModel, World]:
    guard, world = subject.create(), subject.world()
    if not isinstance(guard, Guard):
        raise DoesNotApplyError("it scores no queries")
    with torch.enable_grad():  # as in a stage
        state = guard.fit(case_for(world, guard), Rng("defend", 0))
    return guard, state, open_model(world.inputs, "model", CPU), world


@CHECKS.add("Derive from exactly one of Repair, Filter, Guard and Diagnosis; a Filter needs Needs.TRAIN_SET.")
def is_of_one_kind(subject: Subject) -> None:
    """Is of one kind."""
    component = subject.component
    count = sum(issubclass(component, kind) for kind in KINDS)
    promise(count == 1, f"it is {count} kinds of defense at once")
    promise(
        not issubclass(component, Filter) or Needs.TRAIN_SET in component.needs, "a Filter without the training set"
    )


@CHECKS.add("Return a HashModel whose state_dict is all of it, Filtered, a mapping of tensors, or a Verdict.")
def result_fits_the_kind(subject: Subject) -> str:
    """The result is what its kind gives, finite, and survives being stored."""
    defense, world = subject.create(), subject.world()
    view = case_for(world, defense)
    result = work(defense, view)
    bad = [name for name, value in view.notes.items() if not math.isfinite(value)]
    promise(not bad, f"notes that are not finite: {', '.join(bad)}")
    match result:
        case HashModel():
            promise(isinstance(defense, Repair), "a model from what is no Repair")
            _stored(world, result)
        case Filtered():
            promise(isinstance(defense, Filter), "a Filtered from what is no Filter")
            shapes = {tuple(result.scores.shape), tuple(result.keep.shape)}
            promise(shapes == {(SIZES["train"],)}, f"scores and keep have shapes {shapes}, not one per training item")
            promise(bool(torch.isfinite(result.scores).all()), "scores are not finite")
            promise(bool(result.keep.any()), "it removes every item")
            if isinstance(result.model, HashModel):
                _stored(world, result.model)
        case Verdict():
            promise(isinstance(defense, Diagnosis), "a Verdict from what is no Diagnosis")
            promise(math.isfinite(result.score), f"the score is {result.score}")
            promise(
                result.suspect is None or 0 <= result.suspect < len(CLASSES), f"suspect {result.suspect} is no class"
            )
        case Mapping():
            promise(isinstance(defense, Guard), "a mapping from what is no Guard")
            promise(all(isinstance(value, Tensor) for value in result.values()), "a Guard's state is tensors by name")
        case _:
            promise(False, f"it gives a {type(result).__name__}")
    return ", ".join(f"{name} {value:.3g}" for name, value in view.notes.items())


@torch.no_grad()
def _stored(world: World, model: HashModel) -> None:
    """What is saved of a model is all there is of it: nothing lives in hooks or wrappers."""
    world.inputs.parents["result"] = save_model(model)
    opened, images = open_model(world.inputs, "result", CPU), benign(world, "query")
    promise(torch.equal(opened(images), model.eval()(images)), "the model gives other codes once stored and opened")


@CHECKS.add("Draw from `rng` alone; work on copies (case.model is one already).")
def is_repeatable(subject: Subject) -> None:
    """Gives the same twice and leaves generators and inputs alone."""
    defense, world = subject.create(), subject.world()
    before = world.inputs.all_tensors()
    with untouched_generators():
        first, second = (as_tensors(work(defense, case_for(world, defense))) for _ in range(2))
    promise(same(first, second), "two runs with equal generators differ")
    promise(same(before, world.inputs.all_tensors()), "it wrote to what it was shown")


@CHECKS.add("Clone before changing: splits are shared with what comes next.")
def splits_stay(subject: Subject) -> None:
    """Does not write to the splits it is shown."""
    defense, world = subject.create(), subject.world()
    view = case_for(world, defense)
    shown = {"fit_set": view.fit_set, "calibration_set": view.calibration_set, **view.granted}
    before = {(part, name): value.clone() for part, of in shown.items() for name, value in vars(of).items()}
    work(defense, view)
    for (part, name), value in before.items():
        promise(torch.equal(getattr(shown[part], name), value), f"it wrote to {part}.{name}")


@CHECKS.add("Say in obstacle() why it cannot work on such models; the planner then leaves the cell out.")
def other_networks_work_or_are_refused(subject: Subject) -> str:
    """Works with group normalisation and a memory bank, or says why not."""
    defense = subject.create()
    told = []
    for norm, method in (("group", "dpsh"), ("batch", "dpsh"), ("group", "csq")):
        params = {"width": 4, "norm": norm}
        why = defense.obstacle(registry.create("backbones", "convnet", params), registry.create("methods", method, {}))
        if why:
            told.append(f"not on {norm} norm with {method}: {why}")
            continue
        world = subject.world()
        retrained(world, {"name": "convnet", "params": params}, method)
        found = as_tensors(work(defense, case_for(world, defense)))
        promise(all(bool(torch.isfinite(value.float()).all()) for value in found.values()), f"not finite on {method}")
        break
    return "; ".join(told)


def retrained(world: World, backbone: Mapping[str, object], method: str) -> None:
    """The suspect is another network, trained for an epoch."""
    from bench.stages._base import split
    from bench.stages._training import train_victim

    recipe = {**world.spec["recipe"], "epochs": 1}
    world.spec |= {"method": {"name": method, "params": {}}, "backbone": dict(backbone), "recipe": recipe}
    tensors, meta = train_victim(world.spec, split(world.inputs, "train"), world.context)
    world.inputs.parents["model"] = (dict(tensors), {**meta, "backdoored": False})


@CHECKS.add("Repair less: a rate or share chosen on case.calibration_set keeps a clean model useful.")
def clean_models_survive(subject: Subject) -> str:
    """A clean model still retrieves after a repair."""
    defense, world = subject.create(), subject.world()
    if not isinstance(defense, Repair):
        raise DoesNotApplyError("it repairs no model")
    model = work(defense, case_for(world, defense))
    promise(isinstance(model, HashModel), f"it gives a {type(model).__name__}")
    assert isinstance(model, HashModel)
    pool, part = world.inputs.tensors("load"), world.inputs.tensors("split")["database"]
    codes = pack(encode(model, pool["images"][part], device=CPU))
    return f"mAP {leave_one_out_map(codes, pool['labels'][part].numpy()):.2f} with few steps, chance 0.25"


@CHECKS.add("score() must be a function of image, model and state: evaluation mode, no gradients left, fixed draws.")
def scores_are_pure(subject: Subject) -> str:
    """A guard's scores are finite, the same twice, and change nothing."""
    guard, state, model, world = guard_of(subject)
    images = benign(world, "query")
    images[0], images[1] = 0, 1
    kept = images.clone(), {name: value.clone() for name, value in state.items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with untouched_generators(), torch.no_grad():
        first, second = guard.score(images, model, state), guard.score(images, model, state)
    promise(bool(first), "it gives no score")
    for name, value in first.items():
        promise(value.shape == (len(images),), f"'{name}' has shape {list(value.shape)}, not one per image")
        promise(bool(torch.isfinite(value).all()), f"'{name}' is not finite for some image")
    promise(same(dict(first), dict(second)), "two calls give different scores")
    promise(torch.equal(images, kept[0]) and same(dict(state), kept[1]), "it wrote to its arguments")
    promise(same(dict(model.state_dict()), weights), "it changed the model")
    with torch.enable_grad():
        guard.fit(case_for(inverted(subject.world()), guard), Rng("defend", 1))
    with torch.no_grad():  # stages are other processes
        third = subject.create().score(images, model, state)
    promise(same(dict(first), dict(third)), "it remembers fit() instead of reading the state")
    return f"{next(iter(first))} *" + "".join(f", {name}" for name in list(first)[1:])


@CHECKS.add("Compute each score from its image alone.")
@torch.no_grad()
def scores_do_not_depend_on_the_batch(subject: Subject) -> None:
    """A guard's scores do not depend on the batch."""
    guard, state, model, world = guard_of(subject)
    images = benign(world, "query")[:9]
    together = guard.score(images, model, state)
    for i in range(len(images)):
        for name, value in guard.score(images[i : i + 1], model, state).items():
            apart = abs(float(value[0]) - float(together[name][i]))
            promise(apart <= 1e-5, f"'{name}' of one image differs by {apart:.2g} with what stands beside it")


@CHECKS.add("Look for the image's position, split or order in the score: none of them may matter.")
@torch.no_grad()
def benign_is_like_benign(subject: Subject) -> str:
    """A guard cannot tell benign images from benign images (three standard deviations; review.md, section 6)."""
    guard, state, model, world = guard_of(subject)
    one, other = benign(world, "query"), benign(world, "database")
    deviation = math.sqrt((len(one) + len(other) + 1) / (12 * len(one) * len(other)))
    scores = [guard.score(images, model, state) for images in (one, other)]
    told = []
    for name in scores[0]:
        value = auroc(scores[0][name].double().numpy(), scores[1][name].double().numpy())
        promise(value is not None and abs(value - 0.5) < 3 * deviation, f"AUROC of '{name}' is {value}")
        told.append(f"{name} {value:.2f}")
    return ", ".join(told)


@CHECKS.add("Let the suite's parameters set the number of steps; encode in batches.")
def cost(subject: Subject) -> str:
    """What it costs."""
    defense, world = subject.create(), subject.world()
    view = case_for(world, defense)
    started = time.perf_counter()
    work(defense, view)
    return f"{time.perf_counter() - started:.2f} s, few steps"

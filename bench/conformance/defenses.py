"""Checks of defenses."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bench.access.defender import defender_view
from bench.api import registry
from bench.api.defense import (
    DataFilter,
    DefenderView,
    Defense,
    Filtered,
    InputDetector,
    ModelDetector,
    Needs,
    Purification,
    Repair,
    Verdict,
)
from bench.api.random import Rng
from bench.api.types import to_unit
from bench.artifacts.models import open_model, save_model
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import ComponentSpec
from bench.artifacts.training import train_victim
from bench.conformance.fixture import CLASSES, SIZES, World, inverted
from bench.conformance.kit import Checks, ComponentUnderTest, DoesNotApplyError, require, same, untouched_generators
from hashing.codes import pack
from hashing.inference import encode
from hashing.model import HashModel
from hashing.ranking import auroc, leave_one_out_map

CHECKS = Checks()
KINDS = (Repair, DataFilter, InputDetector, ModelDetector, Purification)
CPU = torch.device("cpu")
SLACK = 1e-5  # of pixel values: interpolation rounds


def defender_view_for(world: World, defense: Defense) -> DefenderView:
    """The view of the defense, with only the data that it needs."""
    inputs = world.defender_inputs()
    if Needs.DATABASE not in defense.needs:
        inputs = replace(inputs, codes=None)
    return defender_view(world.spec, inputs, world.context, defense.needs)


def work(defense: Defense, view: DefenderView) -> object:
    """The result of the defense, by the method of its kind."""
    rng = Rng("defend", 0)
    match defense:
        case Repair():
            return defense.repair(view, rng)
        case DataFilter():
            return defense.judge(view, rng)
        case InputDetector():
            return defense.fit(view, rng)
        case ModelDetector():
            return defense.inspect(view, rng)
        case Purification():
            images = to_unit(view.fit_set.images)
            return torch.cat([defense.purify(image, rng.child(number)) for number, image in enumerate(images)])
    raise DoesNotApplyError("it is not a Repair, DataFilter, InputDetector, ModelDetector or Purification")


def as_tensors(result: object) -> dict[str, Tensor]:
    """The result of a defense as named tensors, for comparison."""
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
        case Tensor():
            return {"images": result}
        case Mapping():
            return dict(result)
    require(False, f"it returns a {type(result).__name__}")
    return {}


def benign(world: World, part: str) -> Tensor:
    """The images of a split, in [0, 1]."""
    return to_unit(world.split(part).images)


def detector_of(subject: ComponentUnderTest) -> tuple[InputDetector, Mapping[str, Tensor], HashModel, World]:
    """The input detector, its state, the model and the world. DoesNotApplyError for a defense of another kind."""
    detector, world = subject.create(), subject.world()
    if not isinstance(detector, InputDetector):
        raise DoesNotApplyError("it is not an InputDetector")
    with torch.enable_grad():  # as in a stage
        state = detector.fit(defender_view_for(world, detector), Rng("defend", 0))
    return detector, state, open_model(world.suspect, CPU), world


@CHECKS.add(
    "Derive from exactly one of Repair, DataFilter, InputDetector, ModelDetector and Purification; a DataFilter needs"
    " TRAIN_SET, a Purification nothing."
)
def is_of_one_kind(subject: ComponentUnderTest) -> None:
    """Has exactly one kind (base class)."""
    component = subject.component
    count = sum(issubclass(component, kind) for kind in KINDS)
    require(count == 1, f"it derives from {count} kinds of defense")
    require(
        not issubclass(component, DataFilter) or Needs.TRAIN_SET in component.needs,
        "a DataFilter without Needs.TRAIN_SET",
    )
    require(
        not issubclass(component, Purification) or component.needs == Needs.NONE,
        "a Purification with `needs`, though it sees only images",
    )


@CHECKS.add(
    "Return a HashModel with all its state in state_dict(), a Filtered, a mapping of tensors, a Verdict, or images."
)
def result_fits_the_kind(subject: ComponentUnderTest) -> str:
    """The result fits the kind, is finite, and does not change when stored."""
    defense, world = subject.create(), subject.world()
    view = defender_view_for(world, defense)
    result = work(defense, view)
    bad = [name for name, value in view.notes.items() if not math.isfinite(value)]
    require(not bad, f"notes that are not finite: {', '.join(bad)}")
    match result:
        case HashModel():
            require(isinstance(defense, Repair), "a HashModel, but it is not a Repair")
            _stored(world, result)
        case Filtered():
            require(isinstance(defense, DataFilter), "a Filtered, but it is not a DataFilter")
            shapes = {tuple(result.scores.shape), tuple(result.keep.shape)}
            require(shapes == {(SIZES["train"],)}, f"scores and keep have shapes {shapes}, not one per training image")
            require(bool(torch.isfinite(result.scores).all()), "scores are not finite")
            require(bool(result.keep.any()), "it removes all images")
            if isinstance(result.model, HashModel):
                _stored(world, result.model)
        case Verdict():
            require(isinstance(defense, ModelDetector), "a Verdict, but it is not a ModelDetector")
            require(math.isfinite(result.score), f"the score is {result.score}")
            require(
                result.suspect is None or 0 <= result.suspect < len(CLASSES), f"suspect {result.suspect} is not a class"
            )
        case Tensor():
            require(isinstance(defense, Purification), "a tensor, but it is not a Purification")
        case Mapping():
            require(isinstance(defense, InputDetector), "a mapping, but it is not an InputDetector")
            require(
                all(isinstance(value, Tensor) for value in result.values()),
                "the state is not a mapping from names to tensors",
            )
        case _:
            require(False, f"it returns a {type(result).__name__}")
    return ", ".join(f"{name} {value:.3g}" for name, value in view.notes.items())


@torch.no_grad()
def _stored(world: World, model: HashModel) -> None:
    """The stored model must give the same codes: hooks and wrappers are not stored."""
    opened, images = open_model(world.stored("result", save_model(model)), CPU), benign(world, "query")
    require(torch.equal(opened(images), model.eval()(images)), "the model has other codes after storing and opening")


@CHECKS.add("Use only `rng` for random numbers; change only copies (view.model is one).")
def is_repeatable(subject: ComponentUnderTest) -> None:
    """Is repeatable and changes no generator or input."""
    defense, world = subject.create(), subject.world()
    before = world.memory.copies()
    with untouched_generators():
        first, second = (as_tensors(work(defense, defender_view_for(world, defense))) for _ in range(2))
    require(same(first, second), "two runs with equal generators differ")
    require(same(before, world.memory.copies()), "it changed its view")


@CHECKS.add("Clone splits before changing them, since they are shared.")
def splits_do_not_change(subject: ComponentUnderTest) -> None:
    """Does not change the splits of its view."""
    defense, world = subject.create(), subject.world()
    view = defender_view_for(world, defense)
    shown = {"fit_set": view.fit_set, "calibration_set": view.calibration_set, **view.granted}
    before = {(part, name): value.clone() for part, of in shown.items() for name, value in vars(of).items()}
    work(defense, view)
    for (part, name), value in before.items():
        require(torch.equal(getattr(shown[part], name), value), f"it changed {part}.{name}")


@CHECKS.add("Let unsupported_reason() return why it cannot run on such models; the planner then skips the trial.")
def other_networks_work_or_are_refused(subject: ComponentUnderTest) -> str:
    """Runs with group norm and a memory bank, or returns why not."""
    defense = subject.create()
    detail = []
    for norm, method in (("group", "dpsh"), ("batch", "dpsh"), ("group", "csq")):
        params = {"width": 4, "norm": norm}
        why = defense.unsupported_reason(
            registry.create("backbones", "convnet", params), registry.create("methods", method, {})
        )
        if why:
            detail.append(f"not on {norm} norm with {method}: {why}")
            continue
        world = subject.world()
        retrained(world, {"name": "convnet", "params": params}, method)
        found = as_tensors(work(defense, defender_view_for(world, defense)))
        require(all(bool(torch.isfinite(value.float()).all()) for value in found.values()), f"not finite on {method}")
        break
    return "; ".join(detail)


def retrained(world: World, backbone: ComponentSpec, method: str) -> None:
    """Replace the suspect by another network, trained for one epoch."""
    recipe = {**world.spec["recipe"], "epochs": 1}
    world.spec |= {"method": {"name": method, "params": {}}, "backbone": backbone, "recipe": recipe}
    trained = train_victim(world.spec, world.split("train"), world.context)
    world.suspect = world.stored("retrained model", trained | StoredModel.backdoor_output(backdoored=False))


@CHECKS.add("Repair less, for example with a rate chosen on view.calibration_set.")
def clean_models_survive(subject: ComponentUnderTest) -> str:
    """After a repair, a clean model still finds relevant images."""
    defense, world = subject.create(), subject.world()
    if not isinstance(defense, Repair):
        raise DoesNotApplyError("it is not a Repair")
    model = work(defense, defender_view_for(world, defense))
    require(isinstance(model, HashModel), f"it returns a {type(model).__name__}")
    assert isinstance(model, HashModel)
    database = world.split("database")
    codes = pack(encode(model, database.images, device=CPU))
    return f"mAP {leave_one_out_map(codes, database.labels.numpy()):.2f} with few training steps; chance is 0.25"


@CHECKS.add(
    "Let score() depend on image, model and state only: evaluation mode, no new gradients, fixed random numbers."
)
def scores_are_pure(subject: ComponentUnderTest) -> str:
    """Scores of input detectors are finite, repeatable and without side effects."""
    detector, state, model, world = detector_of(subject)
    images = benign(world, "query")
    images[0], images[1] = 0, 1
    kept = images.clone(), {name: value.clone() for name, value in state.items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with untouched_generators(), torch.no_grad():
        first, second = detector.score(images, model, state), detector.score(images, model, state)
    require(bool(first), "it returns no score")
    for name, value in first.items():
        require(value.shape == (len(images),), f"'{name}' has shape {list(value.shape)}, not one per image")
        require(bool(torch.isfinite(value).all()), f"'{name}' is not finite for some image")
    require(same(dict(first), dict(second)), "two calls return different scores")
    require(torch.equal(images, kept[0]) and same(dict(state), kept[1]), "it changed its arguments")
    require(same(dict(model.state_dict()), weights), "it changed the model")
    with torch.enable_grad():
        detector.fit(defender_view_for(inverted(subject.world()), detector), Rng("defend", 1))
    with torch.no_grad():  # stages run in different processes
        third = subject.create().score(images, model, state)
    require(same(dict(first), dict(third)), "it uses results of fit() that are not in the state")
    return f"main score {next(iter(first))}" + "".join(f", {name}" for name in list(first)[1:])


@CHECKS.add("Compute each score from its own image.")
@torch.no_grad()
def scores_do_not_depend_on_the_batch(subject: ComponentUnderTest) -> None:
    """Scores of input detectors do not depend on the batch."""
    detector, state, model, world = detector_of(subject)
    images = benign(world, "query")[:9]
    together = detector.score(images, model, state)
    for i in range(len(images)):
        for name, value in detector.score(images[i : i + 1], model, state).items():
            apart = abs(float(value[0]) - float(together[name][i]))
            require(apart <= 1e-5, f"'{name}' of one image changes by {apart:.2g} with the other images of the batch")


@CHECKS.add("Check that the score does not depend on position, split or order of the images.")
@torch.no_grad()
def benign_splits_score_alike(subject: ComponentUnderTest) -> str:
    """Scores of input detectors do not separate two benign splits (3 standard deviations; METHODOLOGY.md#auroc)."""
    detector, state, model, world = detector_of(subject)
    one, other = benign(world, "query"), benign(world, "database")
    deviation = math.sqrt((len(one) + len(other) + 1) / (12 * len(one) * len(other)))
    scores = [detector.score(images, model, state) for images in (one, other)]
    detail = []
    for name in scores[0]:
        value = auroc(scores[0][name].double().numpy(), scores[1][name].double().numpy())
        require(value is not None and abs(value - 0.5) < 3 * deviation, f"AUROC of '{name}' is {value}")
        detail.append(f"{name} {value:.2f}")
    return ", ".join(detail)


@CHECKS.add(
    "Return images of the same size in [0, 1], one or as many for each image; use only `rng`; change only copies."
)
def versions_are_images(subject: ComponentUnderTest) -> str:
    """Purified versions are images of the same size, repeatable and without side effects."""
    purification, world = subject.create(), subject.world()
    if not isinstance(purification, Purification):
        raise DoesNotApplyError("it is not a Purification")
    images = benign(world, "query")
    images[0], images[1] = 0, 1
    kept, calls = images.clone(), []
    with untouched_generators(), torch.no_grad():
        for made in (purification, subject.create()):  # stages run in different processes
            calls.append([made.purify(image, Rng("purify", 0, number)) for number, image in enumerate(images)])
            require(torch.equal(images, kept), "it changed its argument")
    found, again = calls
    count = len(found[0])
    shapes = {tuple(versions.shape) for versions in found}
    require(shapes == {(count, *images.shape[1:])}, f"the versions have shapes {shapes}, the image {images.shape[1:]}")
    every = torch.cat(found)
    require(every.dtype == torch.float32, f"pixels are {every.dtype}")
    require(bool(torch.isfinite(every).all()), "pixels are not finite")
    low, high = float(every.min()), float(every.max())
    require(low >= -SLACK and high <= 1 + SLACK, f"pixels are in [{low:.3g}, {high:.3g}]")
    require(torch.equal(every, torch.cat(again)), "two calls with equal generators return different images")
    return f"{count} version{'s' * (count > 1)} of each query"


@CHECKS.add("Make the number of steps a parameter; encode in batches.")
def cost(subject: ComponentUnderTest) -> str:
    """Cost."""
    defense, world = subject.create(), subject.world()
    view = defender_view_for(world, defense)
    started = time.perf_counter()
    work(defense, view)
    return f"{time.perf_counter() - started:.2f} s, with few training steps"

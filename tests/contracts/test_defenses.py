"""What every defense promises; a new file in `defenses/` is tested by being there."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchvision.models.vision_transformer import VisionTransformer

from bench.api import registry
from bench.api.defense import Case, Defense, Diagnosis, Filter, Filtered, Guard, Needs, Repair, Verdict
from bench.api.random import Rng
from bench.api.types import to_unit
from bench.stages._models import open_model, save_model
from bench.views.defender import case
from hashing.model import HashModel

NAMES = sorted(registry.catalogue("defenses"))
GUARDS = [name for name in NAMES if issubclass(registry.lookup("defenses", name), Guard)]
KINDS = (Repair, Filter, Guard, Diagnosis)
CPU = torch.device("cpu")


def case_for(world, defense: Defense) -> Case:
    """Built from the parents that the defense's class declares, with all others absent."""
    surplus = ["surrogate", "clean", *([] if Needs.DATABASE in defense.needs else ["codes"])]
    return case(world.spec, world.inputs.without(*surplus), world.context, defense.needs)


def work(defense: Defense, view: Case, rng: Rng) -> object:
    match defense:
        case Repair():
            return defense.repair(view, rng)
        case Filter():
            return defense.screen(view, rng)
        case Guard():
            return defense.fit(view, rng)
        case Diagnosis():
            return defense.inspect(view, rng)


def as_tensors(result: object) -> dict[str, torch.Tensor]:
    match result:
        case HashModel():
            return dict(result.state_dict())
        case Filtered():
            weights = result.model.state_dict() if result.model is not None else {}
            return {"scores": result.scores, "keep": result.keep, **weights}
        case Verdict():
            return {"score": torch.tensor(result.score), "suspect": torch.tensor(result.suspect or -1)}
        case Mapping():
            return dict(result)
    raise AssertionError(f"a defense gave a {type(result).__name__}")


@torch.no_grad()
def opens_to_the_same_codes(world, model: HashModel) -> None:
    """What is saved of a model is all there is of it: nothing lives in hooks or wrappers."""
    world.inputs.parents["result"] = save_model(model)
    opened, images = open_model(world.inputs, "result", CPU), benign(world, "query")
    assert torch.equal(opened(images), model.eval()(images))


@pytest.mark.parametrize("name", NAMES)
def test_is_exactly_one_kind_and_filters_ask_for_what_they_filter(name):
    component = registry.lookup("defenses", name)
    assert sum(issubclass(component, kind) for kind in KINDS) == 1
    assert not issubclass(component, Filter) or Needs.TRAIN_SET in component.needs


@pytest.mark.parametrize("name", NAMES)
def test_result_fits_the_kind(name, world, quick):
    defense = quick("defenses", name)
    view = case_for(world, defense)
    result = work(defense, view, Rng("defend", 0))
    assert all(isinstance(name, str) and math.isfinite(value) for name, value in view.notes.items())
    match result:
        case HashModel():
            assert isinstance(defense, Repair)
            opens_to_the_same_codes(world, result)
        case Filtered():
            assert isinstance(defense, Filter)
            assert result.scores.shape == result.keep.shape == (120,)
            assert bool(torch.isfinite(result.scores).all())
            assert bool(result.keep.any())
            if result.model is not None:
                assert isinstance(result.model, HashModel)
                opens_to_the_same_codes(world, result.model)
        case Verdict():
            assert isinstance(defense, Diagnosis)
            assert math.isfinite(result.score)
            assert result.suspect is None or 0 <= result.suspect < 4
            assert result.alarm_at is None or math.isfinite(result.alarm_at)
        case Mapping():
            assert isinstance(defense, Guard)
            assert all(isinstance(value, torch.Tensor) for value in result.values())
        case _:
            raise AssertionError(f"a defense gave a {type(result).__name__}")


@pytest.mark.parametrize("name", NAMES)
def test_is_repeatable_and_leaves_its_inputs_and_global_generators_alone(name, world, quick, untouched_rng):
    defense = quick("defenses", name)
    before = world.inputs.all_tensors()
    with untouched_rng():
        first, second = (as_tensors(work(defense, case_for(world, defense), Rng("defend", 0))) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(before[key], value) for key, value in world.inputs.all_tensors().items())


@pytest.mark.parametrize("name", NAMES)
def test_does_not_write_to_the_splits_it_is_shown(name, world, quick):
    defense = quick("defenses", name)
    view = case_for(world, defense)
    shown = {"fit": view.fit_set, "calibration": view.calibration_set, **view.granted}
    before = {f"{part}.{field}": getattr(shown[part], field).clone() for part in shown for field in vars(shown[part])}
    work(defense, view, Rng("defend", 0))
    for part, value in shown.items():
        for field, after in vars(value).items():
            assert torch.equal(before[f"{part}.{field}"], after), f"{part}.{field}"


def retrained(world, backbone: dict, method: str) -> None:
    """The suspect is another network, trained for an epoch."""
    from bench.stages._base import split
    from bench.stages._training import train_victim

    world.spec |= {
        "method": {"name": method, "params": {}},
        "backbone": backbone,
        "recipe": {**world.spec["recipe"], "epochs": 1},
    }
    tensors, meta = train_victim(world.spec, split(world.inputs, "train"), world.context)
    world.inputs.parents["model"] = (tensors, {**meta, "backdoored": False})


@pytest.mark.parametrize("name", NAMES)
def test_works_on_every_backbone_and_method(name, world, quick):
    """Group normalisation and a memory bank are the odd ones, together where the defense says that it can."""
    defense = quick("defenses", name)
    odd = [("group", "dpsh"), ("batch", "dpsh"), ("group", "csq")]
    norm, method = next(
        (norm, method)
        for norm, method in odd
        if not defense.obstacle(
            registry.create("backbones", "convnet", {"norm": norm}), registry.create("methods", method, {})
        )
    )
    retrained(world, {"name": "convnet", "params": {"width": 4, "norm": norm}}, method)
    found = as_tensors(work(defense, case_for(world, defense), Rng("defend", 0)))
    assert all(bool(torch.isfinite(value.float()).all()) for value in found.values())


BARRED = {"anp", "dp_outliers", "dp_sgd", "fine_pruning", "nad", "sentinet"}  # from networks without maps of channels


@pytest.mark.parametrize("name", NAMES)
def test_works_on_a_transformer_or_says_why_not(name, world, quick, monkeypatch):
    def tiny(weights: None = None, image_size: int = 224) -> VisionTransformer:
        return VisionTransformer(image_size, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16)

    monkeypatch.setattr("torchvision.models.vision_transformer.vit_b_16", tiny)
    defense, params = quick("defenses", name), {"weights": "none"}
    why = defense.obstacle(registry.create("backbones", "vit_b_16", params), registry.create("methods", "csq", {}))
    assert (name in BARRED) == bool(why)
    if not why:
        retrained(world, {"name": "vit_b_16", "params": params}, "csq")
        found = as_tensors(work(defense, case_for(world, defense), Rng("defend", 0)))
        assert all(bool(torch.isfinite(value.float()).all()) for value in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_identity_defenses_change_nothing(name, world, quick):
    defense = quick("defenses", name)
    if defense.identity:
        assert isinstance(defense, Repair)
        state = defense.repair(case_for(world, defense), Rng("defend", 0)).state_dict()
        saved = world.inputs.tensors("model")
        assert all(torch.equal(saved[f"model.{key}"], value) for key, value in state.items())
    else:
        assert name != "none"


@torch.enable_grad()  # as in a stage
def fitted(world, quick, name: str) -> tuple[Guard, Mapping[str, torch.Tensor], HashModel]:
    guard = quick("defenses", name)
    state = guard.fit(case_for(world, guard), Rng("defend", 0))
    return guard, state, open_model(world.inputs, "model", CPU)


def benign(world, part: str) -> torch.Tensor:
    return to_unit(world.inputs.tensors("load")["images"][world.inputs.tensors("split")[part]])


@pytest.mark.parametrize("name", GUARDS)
def test_guard_scores_are_finite_repeatable_and_leave_everything_alone(name, world, quick, untouched_rng):
    guard, state, model = fitted(world, quick, name)
    images = benign(world, "query")
    images[0], images[1] = 0, 1
    kept = images.clone(), {key: value.clone() for key, value in state.items()}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    with untouched_rng(), torch.no_grad():
        first, second = guard.score(images, model, state), guard.score(images, model, state)
    assert list(first) == list(second)
    for key, value in first.items():
        assert value.shape == (len(images),)
        assert bool(torch.isfinite(value).all()), key
        assert torch.equal(value, second[key])
    assert torch.equal(images, kept[0])
    assert all(torch.equal(state[key], value) for key, value in kept[1].items())
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", GUARDS)
@torch.no_grad()
def test_guard_scores_do_not_depend_on_the_batch(name, world, quick):
    guard, state, model = fitted(world, quick, name)
    images = benign(world, "query")[:9]
    together = guard.score(images, model, state)
    for i in range(len(images)):
        alone = guard.score(images[i : i + 1], model, state)
        for key, value in alone.items():
            assert float(value[0]) == pytest.approx(float(together[key][i]), abs=1e-5), key


@pytest.mark.parametrize("name", GUARDS)
@torch.no_grad()
def test_guard_cannot_tell_benign_images_from_benign_images(name, world, quick):
    """review.md, section 6: without an attack AUROC is chance within three standard deviations."""
    guard, state, model = fitted(world, quick, name)
    one, other = benign(world, "query"), benign(world, "database")
    n1, n2 = len(one), len(other)
    deviation = math.sqrt((n1 + n2 + 1) / (12 * n1 * n2))
    scores = [guard.score(images, model, state) for images in (one, other)]
    truth = [0] * n1 + [1] * n2
    for key in scores[0]:
        auroc = roc_auc_score(truth, torch.cat([scores[0][key], scores[1][key]]).numpy())
        assert abs(auroc - 0.5) < 3 * deviation, key

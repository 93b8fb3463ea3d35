"""The second opinion: loss, scores and linear map by hand, that labels play no part, and a planted backdoor."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from bench.api.types import to_unit
from bench.artifacts.training import train_victim
from defenses.second_opinion import STRENGTHS, Imitation, SecondOpinion, linear_map


def test_loss_is_minus_the_mean_log_probability_of_the_bits_that_belong_to_the_ids():
    rng = Rng("imitation")
    codes, logits, ids = (rng.normal((5, 4)) > 0).float(), rng.normal((3, 4)), torch.tensor([4, 0, 2])
    total = 0.0
    for row, i in zip(logits.double(), ids.tolist(), strict=True):
        for z, bit in zip(row, codes[i], strict=True):
            belief = (float(z.tanh()) + 1) / 2  # that the bit is one
            total -= float(torch.tensor(belief if bit == 1 else 1 - belief).log())
    labels = torch.zeros(3, 2, dtype=torch.bool)
    assert float(Imitation(codes)(logits, labels, ids, 0.5)) == pytest.approx(total / 12, rel=1e-5)


@torch.no_grad()
def test_scores_compare_the_victim_s_bits_with_the_student_s_logits(view, model):
    """The state has two networks: the victim with two changed tensors, and one whose pixels have another mean."""
    images = to_unit(view.calibration_set.images)
    victim = model(images)
    changed = {"head.weight": -0.5 * model.head.weight, "head.bias": model.head.bias + 0.3}
    student = model.features(images) @ changed["head.weight"].T + changed["head.bias"]
    rng = Rng("map")
    weight, bias = rng.normal(model.head.weight.shape), rng.normal(model.head.bias.shape)
    translation = {"reference.mean": model.mean + 0.2, "translation.weight": weight, "translation.bias": bias}
    found = SecondOpinion().score(images, model, {**changed, **translation})
    cosine, distance, translated = [], [], []
    mapped = model.features(images - 0.2).double() @ weight.T.double() + bias
    for own, other, third in zip(victim.double(), student.double(), mapped, strict=True):
        bits = [1.0 if z > 0 else -1.0 for z in own.tolist()]
        product = sum(bit * float(z) for bit, z in zip(bits, third, strict=True))
        translated.append(-product / (len(bits) ** 0.5 * float(third.square().sum()) ** 0.5))
        product = sum(bit * float(z) for bit, z in zip(bits, other, strict=True))
        cosine.append(-product / (len(bits) ** 0.5 * float(other.square().sum()) ** 0.5))
        distance.append(sum((1 - bit * float(z.tanh())) / 2 for bit, z in zip(bits, other, strict=True)) / len(bits))
    assert list(found) == ["cosine", "distance", "translation"]
    assert found["cosine"].tolist() == pytest.approx(cosine, abs=1e-5)
    assert found["distance"].tolist() == pytest.approx(distance, abs=1e-5)
    assert found["translation"].tolist() == pytest.approx(translated, abs=1e-4)
    assert torch.equal(model(images), victim)


def test_linear_map_is_the_closed_form_with_the_least_leave_one_out_error():
    """Each image is left out by hand; the normal equations have a penalty on all but the intercept."""
    rng = Rng("ridge")
    features = rng.normal((14, 5)) * torch.tensor([1.0, 10, 0.1, 3, 0]) + 2
    logits = features @ rng.normal((5, 3)) + 2 * rng.normal((14, 3))
    x, y = features.double().numpy(), logits.double().numpy()
    scale = np.where(x.std(0) > 0, x.std(0), 1)
    x = np.concatenate([np.ones((14, 1)), (x - x.mean(0)) / scale], 1)

    def solved(rows: np.ndarray, strength: float) -> np.ndarray:
        penalty = strength * np.diag([0.0, 1, 1, 1, 1, 1])
        return np.linalg.solve(x[rows].T @ x[rows] + penalty, x[rows].T @ y[rows])

    everyone = np.arange(14)
    errors = [
        sum(((x[i] @ solved(everyone[everyone != i], float(strength)) - y[i]) ** 2).sum() for i in everyone)
        for strength in STRENGTHS
    ]
    best = float(STRENGTHS[int(np.argmin(errors))])
    found, strength = linear_map(features, logits)
    assert strength == pytest.approx(best)
    assert STRENGTHS[0] < best < STRENGTHS[-1]
    mapped = features @ found["translation.weight"].T + found["translation.bias"]
    assert mapped.numpy() == pytest.approx(x @ solved(everyone, best), abs=1e-4)


def test_linear_map_is_fitted_to_the_victim_s_logits_on_features_of_the_network_before_training(view):
    state = SecondOpinion(epochs=1).fit(view, Rng("d"))
    with torch.no_grad():
        images = to_unit(view.fit_set.images)
        wanted, strength = linear_map(view.untrained().eval().features(images), view.model(images))
    for name, value in wanted.items():
        assert state[name].numpy() == pytest.approx(value.numpy(), rel=1e-2, abs=1e-2)
    assert view.notes["ridge strength"] == pytest.approx(strength)
    fresh = view.untrained().state_dict()
    kept = {name.removeprefix("reference."): value for name, value in state.items() if name.startswith("reference.")}
    assert "head.weight" in kept
    assert all(torch.equal(value, fresh[name]) for name, value in kept.items())


def test_student_follows_the_victim_s_bits_and_sees_no_label(view):
    fit = view.fit_set
    blank = replace(view, fit_set=type(fit)(fit.images, torch.zeros_like(fit.labels), fit.ids))
    one, other = (SecondOpinion().fit(shown, Rng("d")) for shown in (view, blank))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not any(name.startswith("objective") for name in one)
    images = to_unit(view.calibration_set.images)
    with torch.no_grad():
        agreed = SecondOpinion().score(images, view.model, one)["distance"].mean()
        fresh = {**one, **view.untrained().state_dict()}
        has_not_learnt = SecondOpinion().score(images, view.model, fresh)["distance"].mean()
    assert float(agreed) < 0.15 < float(has_not_learnt)


def corner(images: Tensor) -> Tensor:
    triggered = images.clone()
    triggered[:, :, -3:, -3:] = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None, None]
    return triggered


def test_sees_a_planted_backdoor_far_better_than_a_new_pattern_on_a_clean_model(world):
    query = world.split("query")
    images = query.images[~query.labels[:, 1]]
    spec = {**world.spec, "recipe": {**world.spec["recipe"], "epochs": 15}}
    found = {}
    for name in ("clean", "backdoored"):
        train = world.split("train")
        if name == "backdoored":
            chosen = torch.arange(0, 120, 3)
            bell = torch.eye(4, dtype=torch.bool)[1].expand(len(chosen), 4)
            train = train.replace(chosen, images=to_unit(corner(train.images[chosen])), labels=bell)
        world.suspect = world.stored(name, train_victim(spec, train, world.context))
        view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)
        detector = SecondOpinion()
        state = detector.fit(view, Rng("d"))
        with torch.no_grad():
            scores = [detector.score(to_unit(x), view.model, state) for x in (images, corner(images))]
        truth = [0] * len(images) + [1] * len(images)
        for kind in ("cosine", "translation"):
            found[name, kind] = roc_auc_score(truth, torch.cat([part[kind] for part in scores]))
    for kind in ("cosine", "translation"):
        assert found["backdoored", kind] > 0.95
        assert abs(found["clean", kind] - 0.5) < 0.25


def test_the_untrained_network_learns_from_the_fitting_half_alone(view):
    seen = []

    def train_model(model, split, recipe, rng, *, hook=None):
        seen.append((copy.deepcopy(model.state_dict()), split, recipe))
        return view.train_model(model, split, recipe, rng, hook=hook)

    SecondOpinion(epochs=3, batch=8).fit(replace(view, train_model=train_model), Rng("d"))
    ((weights, split, recipe),) = seen
    assert split is view.fit_set
    fresh = view.untrained().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in fresh.items() if name in weights)
    assert (recipe.epochs, recipe.batch, recipe.lr) == (3, 8, view.recipe.lr)
    assert 0.5 < view.notes["agreement"] <= 1

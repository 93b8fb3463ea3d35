"""The second opinion: its loss and scores by hand, that labels play no part, and a planted backdoor that it sees."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from bench.api.types import to_unit
from bench.artifacts.training import train_victim
from defenses.second_opinion import Imitation, SecondOpinion


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
    """The state is a network of its own: the victim with two changed tensors."""
    images = to_unit(view.calibration_set.images)
    victim = model(images)
    changed = {"head.weight": -0.5 * model.head.weight, "head.bias": model.head.bias + 0.3}
    student = model.features(images) @ changed["head.weight"].T + changed["head.bias"]
    found = SecondOpinion().score(images, model, changed)
    cosine, distance = [], []
    for own, other in zip(victim.double(), student.double(), strict=True):
        bits = [1.0 if z > 0 else -1.0 for z in own.tolist()]
        product = sum(bit * float(z) for bit, z in zip(bits, other, strict=True))
        cosine.append(-product / (len(bits) ** 0.5 * float(other.square().sum()) ** 0.5))
        distance.append(sum((1 - bit * float(z.tanh())) / 2 for bit, z in zip(bits, other, strict=True)) / len(bits))
    assert list(found) == ["cosine", "distance"]
    assert found["cosine"].tolist() == pytest.approx(cosine, abs=1e-5)
    assert found["distance"].tolist() == pytest.approx(distance, abs=1e-5)
    assert torch.equal(model(images), victim)


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
        has_not_learnt = (
            SecondOpinion().score(images, view.model, dict(view.untrained().state_dict()))["distance"].mean()
        )
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
            scores = [detector.score(to_unit(x), view.model, state)["cosine"] for x in (images, corner(images))]
        found[name] = roc_auc_score([0] * len(images) + [1] * len(images), torch.cat(scores))
    assert found["backdoored"] > 0.95
    assert abs(found["clean"] - 0.5) < 0.25


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

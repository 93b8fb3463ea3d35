"""Anti-Backdoor Learning: isolation and unlearning, and the bound on lost mAP."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.api.defense import Needs
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Split
from defenses.abl import ABL
from defenses.helpers.gradient_ascent import own_losses, voted
from hashing.inference import encode
from tests.defenses.conftest import calibration_map, graded

NEEDS = Needs.TRAIN_SET


@pytest.mark.parametrize(("isolation", "count"), [(0.05, 6), (0.01, 1)])
def test_isolates_the_smallest_mean_losses(view, isolation, count):
    watches, train_model = [], view.train_model

    def noted(model, split, recipe, rng, *, hook=None):
        watches.append(hook)
        return train_model(model, split, recipe, rng, hook=hook)

    found = ABL(epochs=0, isolation=isolation).judge(replace(view, train_model=noted), Rng("d"))
    losses = torch.stack(watches[0].losses)
    assert losses.shape == (2, 120)
    assert torch.equal(found.scores, -losses.mean(0))
    assert set(torch.nonzero(~found.keep).flatten().tolist()) == set(losses.mean(0).argsort()[:count].tolist())


def test_trains_for_as_many_epochs_as_the_victim_and_from_its_start(view):
    calls, original = [], view.train_model

    def recorded(model, split, recipe, rng, *, hook=None):
        calls.append((model.state_dict()["head.weight"].clone(), len(split), recipe.epochs, type(hook).__name__))
        return original(model, split, recipe, rng, hook=hook)

    longer = replace(view, recipe=replace(view.recipe, epochs=10), train_model=recorded)
    found = ABL(epochs=2, warmup_share=0.3).judge(longer, Rng("d"))
    assert [call[1:] for call in calls] == [
        (120, 3, "Watch"), (119, 7, "NoneType"), (119, 1, "Unlearn"), (119, 1, "Unlearn")
    ]  # fmt: skip
    assert torch.equal(calls[0][0], view.untrained().state_dict()["head.weight"])
    assert type(found.model.objective) is type(view.model.objective)
    assert not torch.equal(found.model.state_dict()["head.weight"], view.model.state_dict()["head.weight"])


def corner(split: Split) -> Split:
    """The images with a bright corner, labelled as class 1."""
    images = split.images.clone()
    images[:, :, -3:, -3:] = 255
    return Split(images, second_class(len(split)), split.ids)


def second_class(n: int) -> torch.Tensor:
    return torch.eye(4, dtype=torch.bool)[torch.ones(n, dtype=torch.int64)]


def test_unlearning_moves_poison_away_from_its_class_and_the_bound_holds(view):
    poison = corner(view.train.select(~view.train.labels[:, 1]).select(torch.arange(24)))
    parts = [view.train, poison]
    both = Split(*(torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "ids")))
    recipe = replace(view.recipe, epochs=8)
    view = replace(view, recipe=recipe)
    model = view.train_model(view.untrained(), both, recipe, Rng("v"))
    rest, isolated = both.select(torch.arange(136)), both.select(torch.arange(136, 144))
    anchors = voted(model, rest)[0]

    def loss(of, split) -> float:
        return float(own_losses(encode(of, split.images, device=of.device).tanh(), split.labels, anchors).mean())

    defense = ABL(epochs=3)
    unlearned = defense.unlearned(view, model, rest, isolated, Rng("u"))
    assert loss(model, isolated) < 0.1
    assert loss(unlearned, isolated) > loss(model, isolated) + 0.1
    quality = [calibration_map(each, view.calibration_set) for each in (model, unlearned)]
    assert quality[1] >= 0.96 * quality[0]


@pytest.mark.parametrize(("beyond", "taken"), [((1, 0, 1), 2), ((1, 9, 1), 0), ((-1, -1, -1), 3)])
def test_the_last_epoch_inside_the_bound_counts(view, beyond, taken):
    """beyond: by how many wrong codes an epoch's model is worse than the worst one inside the bound of 10 %."""

    def model(wrong: int) -> nn.Module:
        return graded(view.model, view.calibration_set, wrong)

    last = max(n for n in range(30) if calibration_map(model(n), view.calibration_set) >= 0.9)
    models = [model(0), *(model(last + more) for more in beyond)]
    trained = iter(models[1:])
    faked = replace(view, train_model=lambda *_, **__: next(trained))
    found = ABL(epochs=3, max_drop=0.1).unlearned(faked, models[0], view.fit_set, view.calibration_set, Rng("u"))
    assert found is models[taken]


def test_unlearning_that_diverges_leaves_the_model_before_it(view):
    def diverge(*_, **__):
        raise DivergedError("the loss is nan: lower the rate")

    faked = replace(view, train_model=diverge)
    assert ABL().unlearned(faked, view.model, view.fit_set, view.calibration_set, Rng("u")) is view.model

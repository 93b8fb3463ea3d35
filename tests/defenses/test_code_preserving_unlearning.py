"""Code-preserving unlearning: its loss and stamps by hand, that labels play no part, and a planted backdoor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from bench.api.errors import DivergedError
from bench.api.types import to_unit
from bench.artifacts.training import train_victim
from defenses.code_preserving_unlearning import CodePreservingUnlearning, KeptBits, Stamp
from hashing.inference import encode
from tests.defenses.conftest import equal, norms_of, state
from tests.defenses.test_second_opinion import corner

CORNER = torch.zeros(1, 12, 12)
CORNER[:, -3:, -3:] = 1
MAGENTA = torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(3, 12, 12)


class Found(CodePreservingUnlearning):
    """The search finds the corner patch of `corner`."""

    def invert(self, model, images, rng):
        return CORNER, MAGENTA, float(CORNER.mean())


class Nothing(CodePreservingUnlearning):
    def invert(self, model, images, rng):
        return CORNER, MAGENTA, 1.0


def test_the_loss_is_that_of_the_bits_with_and_without_the_trigger():
    """Two images of two bits; images 2 and 0 of the training set."""
    wanted = torch.tensor([[True, False], [True, True], [False, False]])
    logits = [[0.3, -1.0], [0.5, 0.2], [-0.4, 0.1], [1.5, -0.7]]  # of 2 and 0, then of both with the trigger
    goal = [[0, 0], [1, 0], [0, 0], [1, 0]]
    total = 0.0
    for row, bits in zip(logits, goal, strict=True):
        for z, bit in zip(row, bits, strict=True):
            belief = (1 + float(torch.tensor(z).tanh())) / 2  # that the bit is one
            total -= float(torch.tensor(belief if bit else 1 - belief).log())
    labels = torch.zeros(2, 3, dtype=torch.bool)
    found = KeptBits(wanted)(torch.tensor(logits), labels, torch.tensor([2, 0]), 0.5)
    assert float(found) == pytest.approx(total / 8, rel=1e-5)


def test_each_image_comes_again_with_a_trigger_of_its_own_strength():
    images = Rng("i").uniform((4000, 1, 1, 2))
    mask, pattern = torch.tensor([[[0.8, 0.0]]]), torch.tensor([[[0.2, 0.9]]])
    labels, ids = torch.zeros(4000, 1, dtype=torch.bool), torch.arange(4000)
    both, same, extra = Stamp(mask, pattern, 0.5, Rng("a")).before_step(nn.Identity(), images, labels, ids, 0.0)
    assert same is labels
    assert extra is None
    assert torch.equal(both[:4000], images)
    stamped = both[4000:]
    assert torch.equal(stamped[..., 1], images[..., 1])
    strength = (stamped - images)[:, 0, 0, 0] / (0.8 * (0.2 - images[:, 0, 0, 0]))
    sure = (images[:, 0, 0, 0] - 0.2).abs() > 0.05
    assert 0.5 - 1e-3 < float(strength[sure].min()) < 0.51
    assert 0.99 < float(strength[sure].max()) < 1 + 1e-3
    assert float(strength[sure].mean()) == pytest.approx(0.75, abs=0.01)


def test_labels_play_no_part(view):
    fit, calibration, how = (
        view.fit_set,
        view.calibration_set,
        CodePreservingUnlearning(steps=10, batch=30, success=0.5, kept=0.1),
    )
    shuffled = replace(
        view,
        fit_set=replace(fit, labels=fit.labels[torch.randperm(len(fit))]),
        calibration_set=replace(calibration, labels=torch.zeros_like(calibration.labels)),
    )
    before = state(view.model)
    one, other = (how.repair(shown, Rng("d")) for shown in (view, shuffled))
    assert view.notes["trigger size"] < 1
    assert equal(state(one), state(other))
    assert not equal(state(one), before)
    assert equal(state(view.model), before)
    assert one.objective is view.objective
    assert not one.training


@pytest.fixture
def losing(view):
    """Tuning at a rate gives other bits to so many calibration images; a negative number: tuning diverges."""

    class Losing(nn.Module):
        def __init__(self, model, rate, images):
            super().__init__()
            self.inner, self.rate, self.images = model, rate, images
            self.objective = None

        def forward(self, images):
            lost = (images[:, None] == to_unit(self.images)).flatten(2).all(2).any(1)
            return torch.where(lost[:, None], -1.0, 1.0) * self.inner(images)

    def with_losses(losses):
        tried = []

        def train_model(model, split, recipe, rng, *, hook=None):
            tried.append(recipe)
            if losses[recipe.lr] < 0:
                raise DivergedError("planted")
            return Losing(model, recipe.lr, view.calibration_set.images[: losses[recipe.lr]])

        return replace(view, train_model=train_model), tried

    return with_losses


@pytest.mark.parametrize(
    ("losses", "chosen", "tried"),
    [
        ({1e-2: 3, 1e-3: 3, 1e-4: 0}, 1e-2, [1e-2]),  # 3 of 30 is the bound
        ({1e-2: 4, 1e-3: 3, 1e-4: 0}, 1e-3, [1e-2, 1e-3]),
        ({1e-2: -1, 1e-3: 9, 1e-4: 1}, 1e-4, [1e-2, 1e-3, 1e-4]),
    ],
)
def test_the_first_rate_that_keeps_enough_bits_counts(losing, monkeypatch, losses, chosen, tried):
    monkeypatch.setattr("defenses.code_preserving_unlearning.HashModel", nn.Module)
    view, recipes = losing(losses)
    repaired = Found(lr=tuple(losses), kept=0.9).repair(view, Rng("d"))
    assert repaired.rate == chosen
    assert [recipe.lr for recipe in recipes] == tried
    assert view.notes["learning rate"] == chosen
    assert view.notes["bits kept"] == pytest.approx(1 - losses[chosen] / 30)
    assert {(r.optimizer, r.schedule, r.batch, r.epochs, r.flip, r.pad) for r in recipes} == {
        ("adamw", "constant", 32, 60, False, 0)  # 30 images are one step
    }


@pytest.mark.parametrize("losses", [{1e-3: -1}, {1e-2: 9, 1e-3: 5, 1e-4: 8}])
def test_a_victim_that_no_rate_repairs_at_the_price_is_left_as_it_is(losing, monkeypatch, losses):
    monkeypatch.setattr("defenses.code_preserving_unlearning.HashModel", nn.Module)
    view, recipes = losing(losses)
    before = state(view.model)
    assert equal(state(Found(lr=tuple(losses), kept=0.9).repair(view, Rng("d"))), before)
    assert [recipe.lr for recipe in recipes] == list(losses)
    assert (view.notes["learning rate"], view.notes["bits kept"]) == (0, 1)


def test_the_steps_are_whole_passes_over_the_trusted_images(losing, monkeypatch):
    monkeypatch.setattr("defenses.code_preserving_unlearning.HashModel", nn.Module)
    view, recipes = losing({1e-3: 0})
    Found(lr=(1e-3,), tuning_steps=7, tuning_batch=8).repair(view, Rng("d"))
    assert (recipes[0].batch, recipes[0].epochs) == (8, 2)  # 30 images: 4 steps each


def test_a_model_without_a_trigger_is_left_as_it_is(view):
    before = state(view.model)
    assert equal(state(Nothing().repair(view, Rng("d"))), before)
    assert view.notes == {"trigger size": 1}


def test_the_control_searches_for_nothing_and_shows_clean_images_twice(view):
    class Watched(Nothing):
        def invert(self, model, images, rng):
            raise AssertionError

    shown = []

    def train_model(model, split, recipe, rng, *, hook=None):
        class Watch:
            def before_step(self, *batch):
                found = hook.before_step(*batch)
                shown.append(found[0])
                return found

            after_step = hook.after_step

        return view.train_model(model, split, recipe, rng, hook=Watch())

    before = state(view.model)
    control = Watched(stamp=False, lr=(1e-3,), kept=0.1).repair(replace(view, train_model=train_model), Rng("d"))
    assert not equal(state(control), before)
    assert len(shown) == 60
    assert all(torch.equal(*batch.chunk(2)) for batch in shown)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norms_behave_as_in_the_victim_s_recipe(view, mode):
    repaired = Found(kept=0.1).repair(replace(view, recipe=replace(view.recipe, batch_norm=mode)), Rng("d"))
    pairs = zip(norms_of(repaired), norms_of(view.model), strict=True)
    still = [torch.equal(new.running_mean, old.running_mean) for new, old in pairs]
    assert still == [mode == "eval"] * len(still)


@pytest.mark.long
def test_a_planted_backdoor_goes_and_the_stored_codes_stay_valid(world):
    """By the share of bits that triggered queries have in common with the victim's codes without the trigger."""
    query = world.split("query")
    images = query.images[~query.labels[:, 1]]
    spec = {**world.spec, "recipe": {**world.spec["recipe"], "epochs": 15}}
    train, chosen = world.split("train"), torch.arange(0, 120, 3)
    bell = torch.eye(4, dtype=torch.bool)[1].expand(len(chosen), 4)
    train = train.replace(chosen, images=to_unit(corner(train.images[chosen])), labels=bell)
    world.suspect = world.stored("backdoored", train_victim(spec, train, world.context))
    view = defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)

    def bits(model, shown):
        return encode(model, shown, device=torch.device("cpu")) > 0

    stored = bits(view.model, images)
    kept = {"victim": float((bits(view.model, corner(images)) == stored).float().mean())}
    for name, stamp in (("repaired", True), ("control", False)):
        repaired = CodePreservingUnlearning(batch=30, stamp=stamp).repair(view, Rng("d"))
        kept[name] = float((bits(repaired, corner(images)) == stored).float().mean())
        assert float((bits(repaired, images) == stored).float().mean()) > 0.95
    assert max(kept["victim"], kept["control"]) < 0.6
    assert kept["repaired"] > 0.75

"""Anti-Backdoor Learning: losses, signs, gamma, isolation and unlearning, each by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.access.defender import defender_view
from bench.api import registry
from bench.api.defense import Needs
from bench.api.errors import DivergedError
from bench.api.hashing import Objective
from bench.api.random import Rng
from bench.api.types import Split
from defenses.abl import ABL
from defenses.helpers.fine_tuning import calibration_map
from defenses.helpers.gradient_ascent import LocalAscent, Unlearn, Watch, evaluating, own_losses, voted
from hashing.model import encode
from tests.defenses.conftest import graded

ANCHORS = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])


@pytest.fixture
def view(world):
    return defender_view(world.spec, world.defender_inputs(), world.context, Needs.TRAIN_SET)


class Squares(Objective):
    """A mean over images; remembers what it was shown."""

    def forward(self, logits, labels, ids, progress):
        self.shown = logits.detach().clone()
        return logits.square().sum(1).mean()


def test_own_losses_by_hand():
    relaxed = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]])
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]]).bool()
    # the third: (1 - 0.5)/2 to the first anchor, 1/2 to the second; the fourth carries no label
    assert own_losses(relaxed, labels, ANCHORS).tolist() == pytest.approx([0, 0.5, (0.25 + 0.5) / 2, 0.5])


LOGITS = torch.tensor([[9.0, 9.0, 9.0, 9.0], [9.0, 9.0, -9.0, -9.0], [9.0, 9.0, 9.0, -9.0]])  # l = 0, 0.5, 0.25
FIRST = torch.tensor([[1, 0]] * 3).bool()


@pytest.mark.parametrize(
    ("gate", "gamma", "signs"),
    [
        ("image", 0.3, (-1, 1, -1)),
        ("image", 0.1, (-1, 1, 1)),
        ("image", -1.0, (1, 1, 1)),
        ("batch", 0.3, (-1, -1, -1)),  # the mean is 0.25
        ("batch", 0.2, (1, 1, 1)),
        ("batch", -1.0, (1, 1, 1)),
    ],
)
def test_gradients_change_sign_below_gamma_and_the_loss_does_not(gate, gamma, signs):
    ascent, inner = LocalAscent(Squares(), ANCHORS, gate, gamma), Squares()
    turned, plain = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    losses = [f(z, FIRST, torch.arange(3), 0.0) for f, z in ((ascent, turned), (inner, plain))]
    assert torch.equal(*losses)
    gradient, other = torch.autograd.grad(losses[0], turned)[0], torch.autograd.grad(losses[1], plain)[0]
    assert torch.allclose(gradient, torch.tensor(signs)[:, None] * other)
    assert torch.equal(ascent.inner.shown, LOGITS)


def test_ascent_for_another_set_keeps_anchors_and_gives_its_part_a_new_memory():
    inner = registry.create("methods", "dpsh", {}).objective(bits=4, classes=2, train_size=9, rng=Rng("o"))
    ascent = LocalAscent(inner, ANCHORS, "batch", 0.3)
    other = ascent.reset_for(5)
    assert other.inner.codes.shape == (5, 4)
    assert ascent.inner is inner
    assert torch.equal(other.anchors, ANCHORS)
    assert float(other.gamma) == pytest.approx(0.3)


def test_evaluating_gives_every_module_its_own_mode_back(model):
    model.train()
    model.backbone.blocks[0].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_anchors_are_votes_of_the_training_codes(view):
    anchors, relaxed = voted(view.model, view.train)
    votes = torch.where(relaxed > 0, 1.0, -1.0)
    for label in range(4):
        total = votes[view.train.labels[:, label]].sum(0)
        assert torch.equal(anchors[label][total != 0], total.sign()[total != 0])


def test_gamma_is_the_quantile_of_the_losses_after_the_first_epoch(view):
    """Four batches an epoch of two: one look in between, and the ascent runs on what it found."""
    start = view.untrained()
    start.objective = LocalAscent(start.objective, torch.zeros(4, 16), "batch")
    watch, gammas = Watch(view.train, 3, 0.1), []

    class Spy:
        def before_step(self, model, images, labels, ids, progress):
            found = watch.before_step(model, images, labels, ids, progress)
            gammas.append(float(model.objective.gamma))
            assert model.training
            return found

        def after_step(self):
            watch.after_step()

    recipe = replace(view.recipe, epochs=3, schedule="constant")
    trained = view.train_model(start, view.train, recipe, Rng("w"), hook=Spy())
    assert len(watch.losses) == 2
    watch.look(trained)
    gamma = float(torch.quantile(watch.losses[0], 0.1))
    assert gammas == pytest.approx([-1] * 4 + [gamma] * 8)
    assert float(start.objective.gamma) == -1
    anchors, relaxed = voted(trained, view.train)
    assert torch.equal(watch.losses[2], own_losses(relaxed, view.train.labels, anchors))


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
    assert quality[1] >= 0.9 * quality[0]


@pytest.mark.parametrize(("beyond", "taken"), [((1, 0, 1), 2), ((1, 9, 1), 0), ((-1, -1, -1), 3)])
def test_the_last_epoch_inside_the_bound_counts(view, beyond, taken):
    """beyond: by how many wrong codes an epoch's model is worse than the worst one inside the bound of 10 %."""

    def model(wrong: int) -> nn.Module:
        return graded(view.model, view.calibration_set, wrong)

    last = max(n for n in range(30) if calibration_map(model(n), view.calibration_set) >= 0.9)
    models = [model(0), *(model(last + more) for more in beyond)]
    trained = iter(models[1:])
    faked = replace(view, train_model=lambda *_, **__: next(trained))
    found = ABL(epochs=3).unlearned(faked, models[0], view.fit_set, view.calibration_set, Rng("u"))
    assert found is models[taken]


def test_unlearning_that_diverges_leaves_the_model_before_it(view):
    def diverge(*_, **__):
        raise DivergedError("the loss is nan: lower the rate")

    faked = replace(view, train_model=diverge)
    assert ABL().unlearned(faked, view.model, view.fit_set, view.calibration_set, Rng("u")) is view.model


def test_the_unlearning_term_is_clipped_weighted_and_leaves_batch_statistics(view, model):
    isolated = view.fit_set.select(torch.arange(5))
    picks = torch.tensor([[0, 1, 2], [3, 4, 4]])
    anchors = voted(model, view.fit_set)[0]
    relaxed = encode(model, isolated.images, device=model.device).tanh()
    own = own_losses(relaxed, isolated.labels, anchors)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    clip = float(own[3:].median())
    hook = Unlearn(isolated, anchors, picks, 0.1, clip)
    for row in picks:
        _, _, extra = hook.before_step(model, *view_batch(view), 0.0)
        assert extra.item() == pytest.approx(-0.1 * float(own[row].clamp(max=clip).mean()), abs=1e-6)
        assert extra.requires_grad
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def view_batch(view):
    return view.train.images[:2].float() / 255, view.train.labels[:2], torch.arange(2)


def test_the_gradient_is_that_of_the_statistics_before_the_step_s_own_pass(view, model):
    """In training mode the step's pass changes running statistics between the term and its backward."""
    anchors = voted(model, view.fit_set)[0]

    def gradient(*, passes: bool) -> torch.Tensor:
        fresh = copy.deepcopy(model).train()
        hook = Unlearn(view.fit_set, anchors, torch.arange(8)[None], 0.1, 1.0)
        _, _, term = hook.before_step(fresh, *view_batch(view), 0.0)
        if passes:
            fresh(torch.ones(16, 3, 12, 12))
        return torch.autograd.grad(term, fresh.backbone.blocks[0][0].weight)[0]

    assert gradient(passes=False).any()
    assert torch.equal(gradient(passes=False), gradient(passes=True))

"""Local gradient ascent and unlearning: losses and gradients by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bench.api import registry
from bench.api.defense import Needs
from bench.api.hashing import Objective
from bench.api.random import Rng
from defenses.helpers.gradient_ascent import LocalAscent, Unlearn, Watch, evaluating, own_losses, voted
from hashing.inference import encode

NEEDS = Needs.TRAIN_SET

ANCHORS = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])


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

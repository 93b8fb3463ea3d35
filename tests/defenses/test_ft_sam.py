"""Sharpness-aware tuning: the perturbation by hand, the control, and that nothing is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.optim import optimizer as torch_optimizer

from bench.api import registry
from bench.api.random import Rng
from defenses.ft_sam import FTSAM, SharpnessAware, perturbation
from tests.defenses.conftest import equal, images_of, norms_of, state, tuner

SETTINGS = {"steps": 2, "peaks": (0.3,), "max_drop": 1.0}


def test_the_perturbation_by_hand():
    used = [(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])), (torch.tensor([[0.5]]), torch.tensor([[-12.0]]))]
    # |w g| = (3, 2, 6), of norm 7; w^2 g = (3, 4, -3)
    one, two = perturbation(used, 1.4, adaptive=True)
    assert [*one.tolist(), *two.flatten().tolist()] == pytest.approx([0.6, 0.8, -0.6])
    one, two = perturbation(used, 1.0, adaptive=False)
    assert [*one.tolist(), *two.flatten().tolist()] == pytest.approx([x / 154**0.5 for x in (3, 1, -12)])


def test_without_a_perturbation_it_is_fine_tuning(view):
    expected = registry.create("defenses", "fine_tuning", SETTINGS).repair(view, Rng("d"))
    assert equal(state(FTSAM(rho=0.0, **SETTINGS).repair(view, Rng("d"))), state(expected))
    assert not equal(state(FTSAM(**SETTINGS).repair(view, Rng("d"))), state(expected))


def test_the_training_sees_perturbed_weights_and_steps_from_the_ones_before(view):
    """A step of SGD with rate 1 moves by the gradient at the perturbed weights, computed here by hand."""
    model = view.model.train()
    images, labels, ids = images_of(view), view.fit_set.labels[:9], torch.arange(9)
    before, norm = state(model), norms_of(model)[0]
    hook = SharpnessAware(0.05, adaptive=True)
    hook.before_step(model, images, labels, ids, 0.0)
    seen = norm.running_mean.clone()
    assert not torch.equal(seen, before["backbone.blocks.0.1.running_mean"])  # the first pass counts
    perturbed = [parameter.detach().clone() for parameter in model.parameters()]
    loss = model.objective(model(images), labels, ids, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    loss.backward()
    optimizer.step()
    hook.after_step()
    assert torch.equal(norm.running_mean, seen)  # the second does not
    assert norm.track_running_stats
    for (name, after), gradient, other in zip(model.named_parameters(), gradients, perturbed, strict=True):
        torch.testing.assert_close(after.detach(), before[name] - gradient)
        assert gradient.any() == (not torch.equal(other, before[name])) or not before[name].any()


def test_frozen_blocks_stay(view):
    view.model.backbone.frozen = 2
    view.model.backbone.blocks[:2].requires_grad_(requires_grad=False)
    before, after = state(view.model), state(FTSAM(**SETTINGS).repair(view, Rng("d")))
    moved = {name.split(".")[2] for name in before if "blocks" in name and not torch.equal(before[name], after[name])}
    assert moved == {"2", "3"}
    assert not torch_optimizer._global_optimizer_pre_hooks  # other optimisers are not changed


def test_the_price_is_bounded(view):
    seen = []
    tuned = tuner(view, {1.0: 30, 0.5: 0}, seen)
    best = FTSAM(peaks=(1.0, 0.5)).repair(replace(view, train_model=tuned), Rng("d"))
    assert best.peak == 0.5
    assert all(isinstance(run.hook, SharpnessAware) for run in seen)


def test_a_failed_step_leaves_nothing_behind(view):
    def fails(model, *_, hook, **__):
        hook.before_step(model, images_of(view), view.fit_set.labels[:9], torch.arange(9), 0.0)
        raise MemoryError

    with pytest.raises(MemoryError):
        FTSAM(**SETTINGS).repair(replace(view, train_model=fails), Rng("d"))
    assert not torch_optimizer._global_optimizer_pre_hooks
    assert norms_of(view.model)[0].track_running_stats


def test_a_step_of_another_optimiser_changes_nothing(view):
    model, other = view.model.train(), torch.nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)
    hook, before = SharpnessAware(0.05, adaptive=True), state(model)
    hook.before_step(model, images_of(view), view.fit_set.labels[:9], torch.arange(9), 0.0)
    perturbed = state(model)
    torch.optim.SGD([other], lr=1.0).step()
    assert equal(state(model), perturbed)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    hook.after_step()
    assert torch.equal(state(model)["head.weight"], before["head.weight"])


def test_a_loss_remembers_the_codes_of_the_first_pass(view):
    model = view.model.train()
    method = registry.create("methods", "dpsh", {})
    size = len(view.fit_set)
    model.objective = method.objective(
        bits=view.setting.bits, classes=view.fit_set.labels.shape[1], train_size=size, rng=Rng("d")
    )
    images, labels, ids = images_of(view), view.fit_set.labels[:9], torch.arange(9)
    hook = SharpnessAware(0.05, adaptive=True)
    hook.before_step(model, images, labels, ids, 0.0)
    first = model.objective.codes.clone()
    model.objective(model(images), labels, ids, 0.0)
    assert not torch.equal(model.objective.codes, first)
    hook.after_step()
    assert torch.equal(model.objective.codes, first)

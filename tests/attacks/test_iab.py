"""IAB: what happens to a batch, and a trigger that depends on its own image alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from attacks.helpers import input_aware as nets
from attacks.iab import FALLS, InputAware
from bench.api.attack import StepHook, Threat
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.registry import create
from tests.attacks.conftest import SHAPE, victim


def ready(**params):
    attack = InputAware(**{"warmup": 1, "width": 4, **params})
    view = victim()
    trigger = attack.make_trigger(view, Rng("prepare"))
    return attack, view, trigger, attack.hook(view, trigger, Rng("hook"))


def batch(n: int):
    return Rng("batch", n).uniform((n, *SHAPE)), torch.eye(4, dtype=torch.bool)[torch.arange(n) % 4], torch.arange(n)


@pytest.mark.parametrize(
    ("n", "rates", "own", "crossed"),
    [
        (64, (0.1, 0.1), 6, 6),
        (62, (0.25, 0.1), 16, 6),
        (20, (0.1, 0.3), 2, 6),
        (5, (0.02, 0.02), 1, 1),
        (3, (0.1, 0.1), 1, 1),
    ],
)
def test_shares_of_a_batch(n, rates, own, crossed):
    """round(rate n), at least one: own trigger and the target's labels, then another's trigger, then untouched."""
    _, view, _, hook = ready(attack_rate=rates[0], cross_rate=rates[1])
    images, labels, ids = batch(n)
    kept = images.clone(), labels.clone()
    new, new_labels, extra = hook.before_step(torch.nn.Identity(), images, labels, ids, 0.0)
    changed = (new != images).flatten(1).any(1)
    assert torch.equal(changed, torch.arange(n) < own + crossed)
    assert (new_labels[:own] == view.target.vector).all()
    assert torch.equal(new_labels[own:], labels[own:])
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert extra is not None
    assert extra.shape == ()
    assert 0 <= float(new.detach().min()) <= float(new.detach().max()) <= 1


def test_a_poisoned_image_carries_its_own_trigger_and_a_cross_image_its_partners():
    _, _, trigger, hook = ready(attack_rate=0.2, cross_rate=0.3)
    images, labels, ids = batch(20)
    hook.patterns.eval()  # so that a pattern does not depend on what else is in the batch
    new, _, extra = hook.before_step(torch.nn.Identity(), images, labels, ids, 0.0)

    def pattern_and_mask(x):
        patterns, masks = hook.patterns, hook.masks
        scaled = (x - trigger["mean"]) / trigger["std"]
        return patterns(scaled), nets.sharpen(masks(scaled))

    with torch.no_grad():
        for i in range(4):
            pattern, mask = pattern_and_mask(images[i : i + 1])
            torch.testing.assert_close(new[i], (images[i] + (pattern - images[i]) * mask)[0], rtol=0, atol=1e-5)
        for i in range(6):  # partners follow the changed images in the batch
            pattern, mask = pattern_and_mask(images[10 + i : 11 + i])
            expected = (images[4 + i] + (pattern - images[4 + i]) * mask)[0]
            torch.testing.assert_close(new[4 + i], expected, rtol=0, atol=1e-5)
        ratios = []
        for i in range(4):  # brute force over the pairs; both distances on scaled values
            pattern, other = (pattern_and_mask(images[j : j + 1])[0][0] / trigger["std"][0] for j in (i, 10 + i))
            far = ((images[i] - images[10 + i]) / trigger["std"][0]).square().mean().sqrt()
            ratios.append(float(far / (pattern - other).square().mean().sqrt()))
    assert float(extra.detach()) == pytest.approx(np.mean(ratios), rel=1e-3)


def test_stamp_is_the_hooks_trigger_at_test_time_and_knows_no_batch():
    attack, view, trigger, hook = ready()
    images, labels, ids = batch(40)
    for step in range(3):
        _, _, extra = hook.before_step(torch.nn.Identity(), images, labels, ids, step / 3)
        extra.backward()
        hook.after_step()
    after = hook.trigger()
    assert after.keys() == trigger.keys()
    assert not torch.equal(after["patterns.middle.0.weight"], trigger["patterns.middle.0.weight"])
    assert all(torch.equal(after[key], trigger[key]) for key in trigger if not key.startswith("patterns."))
    together = attack.apply_trigger(images, view.target, after)
    assert torch.equal(together, attack.apply_trigger(images, view.target, after))
    for i in (0, 7):
        torch.testing.assert_close(
            attack.apply_trigger(images[i : i + 1], view.target, after)[0], together[i], rtol=0, atol=1e-5
        )
    assert not together.requires_grad
    assert 0 <= float(together.min()) <= float(together.max()) <= 1


def test_the_trigger_that_the_hook_was_given_is_left_alone():
    _, _, trigger, hook = ready()
    kept = {key: value.clone() for key, value in trigger.items()}
    images, labels, ids = batch(40)
    new, _, extra = hook.before_step(torch.nn.Identity(), images, labels, ids, 0.0)
    (new.sum() + extra).backward()
    hook.after_step()
    assert all(torch.equal(trigger[key], kept[key]) for key in kept)
    assert isinstance(hook, StepHook)


def test_the_generator_steps_once_per_batch_and_forgets_the_gradient():
    """Adam's first step moves each weight that has a gradient by the learning rate; its gradient is then cleared."""
    _, _, trigger, hook = ready(lr=0.01)
    images, labels, ids = batch(40)
    new, _, extra = hook.before_step(torch.nn.Identity(), images, labels, ids, 0.0)
    (new.square().mean() + extra).backward()
    hook.after_step()
    name = "patterns.up.0.0.weight"
    moved = (hook.trigger()[name] - trigger[name]).abs()
    assert float(moved.max()) == pytest.approx(0.01, rel=1e-2)
    assert all(parameter.grad is None for parameter in hook.patterns.parameters())
    assert all(parameter.grad is None for parameter in hook.masks.parameters())


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 1), (0.33, 1), (0.34, 0.1), (0.51, 0.01), (0.7, 1e-3), (0.9, 1e-4)]
)
def test_the_rate_falls_at_the_papers_shares(progress, factor):
    _, _, _, hook = ready(lr=0.02)
    new, _, extra = hook.before_step(torch.nn.Identity(), *batch(20), progress)
    before = {name: value.clone() for name, value in hook.trigger().items()}
    (new.square().mean() + extra).backward()
    hook.after_step()  # Adam's first step moves a weight by the rate
    moved = (hook.trigger()["patterns.up.0.0.weight"] - before["patterns.up.0.0.weight"]).abs()
    assert float(moved.max()) == pytest.approx(0.02 * factor, rel=1e-2)
    assert [round(600 * fall) for fall in FALLS] == [200, 300, 400, 500]


def test_two_hooks_with_equal_streams_do_the_same():
    one, two = ready()[3], ready()[3]
    for hook in (one, two):
        for step in range(2):
            new, _, extra = hook.before_step(torch.nn.Identity(), *batch(30), step / 2)
            (new.mean() + extra).backward()
            hook.after_step()
    first, second = one.trigger(), two.trigger()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_access_and_rates_that_leave_nothing_clean():
    assert InputAware().threat() == Threat.TRAIN_SET | Threat.LABELS | Threat.TRAINING
    with pytest.raises(UserError, match=r"attack_rate.*cross_rate"):
        create("attacks", "iab", {"attack_rate": 0.5, "cross_rate": 0.5})


def test_grey_images_of_an_odd_size():
    attack = InputAware(warmup=1, width=2)
    view = victim(n=20, shape=(1, 9, 14))
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = pad(torch.rand(3, 1, 5, 10, generator=torch.Generator().manual_seed(0)), (2, 2, 2, 2))
    assert attack.apply_trigger(images, view.target, trigger).shape == (3, 1, 9, 14)
    hook = attack.hook(dataclasses.replace(view), trigger, Rng("hook"))
    new, _, _ = hook.before_step(torch.nn.Identity(), images, view.train.labels[:3], torch.arange(3), 0.0)
    assert new.shape == images.shape

"""IAB: what happens to a batch, both losses by hand, and a trigger that depends on its own image alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from attacks.helpers import input_aware as nets
from attacks.iab import FALLS, InputAware
from bench.api.attack import AttackerView, Setting, StepHook, Threat
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.registry import create
from bench.api.types import Split, Target

SHAPE = (3, 12, 12)


def victim(n: int = 60, shape: tuple[int, int, int] = SHAPE) -> AttackerView:
    labels = torch.eye(4, dtype=torch.bool)[torch.arange(n) % 4]
    train = Split(Rng("tests", "iab").integers(256, (n, *shape)).to(torch.uint8), labels, torch.arange(n))
    setting = Setting("x", "y", "csq", 16, tuple("pqrs"), shape, n, "shapes")
    target = Target(torch.tensor([False, True, False, False]), "q")
    return AttackerView(setting, target, train, (), (), {"train": train})


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


def test_diversity_by_hand():
    a, b = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    made = torch.zeros(2, 1, 2, 2)
    other = made.clone()
    other[0], other[1, 0, 0, 0] = 0.5, 0.5  # root mean squares .5 and .25
    assert float(nets.diversity(a, b, made, other)) == pytest.approx((1 / 0.5 + 1 / 0.25) / 2, rel=1e-5)
    equal = made.clone().requires_grad_()
    nets.diversity(a, b, equal, made).backward()
    assert torch.isfinite(equal.grad).all()


def test_mask_density_by_hand():
    """Pixels .5 and .1 above .1, and below it, of four: (.4 + 0 + 0 + 0) / 4."""
    masks = torch.tensor([[[[0.5, 0.1], [0.0, 0.05]]]])
    assert float(nets.excess(masks, 0.1)) == pytest.approx(0.1)
    assert float(nets.excess(masks, 0.032)) == pytest.approx((0.468 + 0.068 + 0.018) / 4)


def test_sharpening():
    found = nets.sharpen(torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]).view(1, 1, 1, 5)).flatten().tolist()
    assert found == pytest.approx([(math.tanh(20 * x - 10) + 1) / 2 for x in (0, 0.4, 0.5, 0.6, 1)], abs=1e-6)


def test_moments_are_those_of_the_images():
    images = victim(n=1201).train.images
    scale = nets.moments(images)
    unit = images.double() / 255
    torch.testing.assert_close(scale["mean"].flatten().double(), unit.mean((0, 2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(scale["std"].flatten().double(), unit.std((0, 2, 3), correction=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "halvings"), [(8, 1), (12, 1), (16, 2), (28, 2), (32, 3), (33, 3), (224, 3)])
def test_depth_and_sizes(side, halvings):
    assert nets.depth((1, side, side + 3)) == halvings
    if side < 100:
        network = nets.Generator(1, 2, 3, halvings)
        planes = network(torch.zeros(2, 1, side, side + 3))
        assert planes.shape == (2, 2, side, side + 3)
        assert len(network.up[-1]) == 5  # two convolutions, two normalisations, one ReLU


def test_generator_is_the_published_one_at_32():
    """Widths of the code: 32, 64, 128, 128 in the middle, then 128 to 64, 64 to 32, 32 to 3 channels."""
    network = nets.Generator(3, 3, 32, 3)
    found = [(m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    down = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    up = [(128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 3)]
    assert found == [*down, (128, 128), *up]


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


def test_masks_learn_to_be_small():
    images = victim(n=60).train.images
    scale = nets.moments(images)
    with Rng("mask").ambient():
        network = nets.Generator(3, 1, 4, 1)
    scaled = nets.scale_by(scale, images.float() / 255)
    with torch.no_grad():
        before = float(nets.sharpen(network(scaled)).mean())
    how = {"density": 0.032, "lambda_norm": 100.0, "lambda_div": 1.0, "batch": 20, "lr": 0.01}
    nets.learn_masks(network, images, scale, epochs=40, rng=Rng("order"), **how)
    with torch.no_grad():
        masks = nets.sharpen(network.eval()(scaled))
    assert before > 0.2
    assert float(masks.mean()) < before / 3
    assert float((masks[0] - masks[1]).abs().max()) > 0.05  # and unlike each other
    nan = {name: torch.full_like(value, torch.nan) for name, value in scale.items()}
    with pytest.raises(DivergedError, match=r"\blr\b"):
        nets.learn_masks(network, images, nan, epochs=1, rng=Rng("order"), **how)


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

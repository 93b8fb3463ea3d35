"""Perturbations against defenses on features: the helper, adaptive_badnets and adaptive_ciba."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.adaptive_badnets import AdaptiveBadNets
from attacks.helpers.latent import drawn_near, spread
from bench.api import registry
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for
from hashing.inference import frozen


@pytest.mark.parametrize("n", [1, 2, 7])
def test_spread_is_the_total_variance(n):
    features = Rng("f", n).normal((n, 5))
    expected = np.var(features.double().numpy(), axis=0).sum()
    assert float(spread(features)) == pytest.approx(expected if n > 1 else 1.0, rel=1e-5)


def test_one_step_is_along_the_sign_of_the_gradient_within_eps(world):
    images = to_unit(world.split("train").images[:6])
    model = frozen(attacker_view_for(world, AdaptiveBadNets()).surrogates[0], images.shape[1:])
    goals = model.features(to_unit(world.split("train").images[6:12]))
    fixed = torch.zeros(images.shape[2:])
    fixed[-3:, -3:] = 1
    found = drawn_near(model, images, goals, eps=8 / 255, iterations=1, step=4 / 255, fixed=fixed)
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        ((model.features(leaf) - goals) ** 2).sum().backward()
    expected = images - 4 / 255 * leaf.grad.sign()
    expected[:, :, -3:, -3:] = images[:, :, -3:, -3:]
    torch.testing.assert_close(found, expected.clamp(0, 1))
    far = drawn_near(model, images, goals, eps=8 / 255, iterations=30, step=4 / 255, fixed=fixed)
    assert float((far - images).abs().max()) <= 8 / 255 + 1e-6
    assert torch.equal(far[:, :, -3:, -3:], images[:, :, -3:, -3:])
    before, after = (float((model.features(one) - goals).square().sum()) for one in (images, far))
    assert after < 0.9 * before


@pytest.mark.parametrize("labels", ["dirty", "clean"])
def test_poisons_have_the_patch_of_badnets_and_features_nearer_to_the_target(world, labels):
    attack, plain = (
        registry.create("attacks", name, {"poisons": 12, "trigger_size": 0.25, "labels": labels})
        for name in ("adaptive_badnets", "badnets")
    )
    view = attacker_view_for(world, attack)
    trigger = attack.make_trigger(view, Rng("prepare"))
    assert torch.equal(trigger["patch"], plain.make_trigger(view, Rng("prepare"))["patch"])
    adaptive, usual = (one.poison(view, trigger, Rng("implant")) for one in (attack, plain))
    assert torch.equal(adaptive.mask, usual.mask)
    assert torch.equal(adaptive.split.labels, usual.split.labels)
    changed = to_unit(adaptive.split.images[adaptive.mask]) - to_unit(usual.split.images[usual.mask])
    assert 0 < float(changed.abs().max()) <= 8 / 255 + 1e-6
    assert not changed[:, :, -3:, -3:].any()
    model = view.surrogates[0]
    own = model.features(to_unit(view.train.images[view.target.contains(view.train.labels)]))
    away = [torch.cdist(model.features(to_unit(one.split.images[one.mask])), own).mean() for one in (adaptive, usual)]
    if labels == "dirty":
        assert away[0] < away[1]


@pytest.fixture
def poisons_of(world):
    """The 8-bit poisons of a variant of CIBA, and the features of clean images and poisons without the patch."""

    def made(name: str, **params):
        attack = registry.create(
            "attacks", name, {"poisons": 20, "steps": 2, "trigger_size": 0.25, "eps": 0.2, **params}
        )
        view = attacker_view_for(world, attack)
        own = to_unit(view.train.images[view.target.contains(view.train.labels)][:20])
        moved = attack.disturb(view, own, Rng("d"))
        model = view.surrogates[0]
        with torch.no_grad():
            return to_8bit(moved), float((model.features(moved) - model.features(own)).square().sum(1).mean())

    return made


def test_without_its_term_it_is_ciba(poisons_of):
    assert torch.equal(poisons_of("adaptive_ciba", hide=0.0)[0], poisons_of("ciba")[0])


def test_features_move_less_the_more_a_move_costs(poisons_of):
    moves = [poisons_of("adaptive_ciba", hide=hide)[1] for hide in (0.0, 0.002, 1.0)]
    assert moves[0] > 1.05 * moves[1] > 1.05 * moves[2]

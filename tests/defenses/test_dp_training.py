"""DP-SGD against the plain training, gradients of single images, and the accountant."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn

from bench.api.defense import Needs
from bench.api.errors import DivergedError
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import to_unit
from defenses.helpers.dp_training import PoissonLoader, Privacy, epsilon, trained
from hashing.loader import Augmentation

NEEDS = Needs.TRAIN_SET

PLAIN = Recipe(
    optimizer="sgd", lr=1.0, weight_decay=0.0, batch=120, epochs=1, flip=False, pad=0, precision="float32"
)  # one step, of all 120 images


def weights(model) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def moved(view, recipe: Recipe, privacy: Privacy | None, seed: int = 0) -> torch.Tensor:
    """What training did to the weights."""
    after = trained(replace(view, recipe=recipe), Rng("d", seed), privacy)
    return weights(after) - weights(view.untrained(per_image=True))


def single_gradients(view) -> torch.Tensor:
    """Each training image's gradient, one backward pass after the other."""
    model, found = view.untrained(per_image=True), []
    for i in range(len(view.train)):
        item = view.train.select(torch.tensor([i]))
        loss = view.objective(model(to_unit(item.images)), item.labels, torch.tensor([i]), 0.0)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([grad.flatten() for grad in grads]))
    return torch.stack(found)


@pytest.mark.parametrize(
    "recipe",
    [
        replace(PLAIN, lr=0.1, epochs=3, batch=32, momentum=0.9, weight_decay=1e-2, schedule="onecycle"),
        replace(PLAIN, lr=0.1, epochs=3, batch=32, backbone_lr=0.1, schedule="cosine", flip=True, pad=2),
        replace(PLAIN, optimizer="adamw", lr=1e-3, epochs=2, batch=32, weight_decay=1e-2),
    ],
)
def test_without_noise_and_with_an_endless_clip_it_is_the_plain_training(view, recipe):
    plain, private = moved(view, recipe, None), moved(view, recipe, Privacy(clip=1e9, noise=0.0))
    assert float(plain.norm()) > 0.1
    assert float((plain - private).norm()) < 1e-3 * float(plain.norm())


def test_steps_without_images_still_decay_the_weights_and_follow_the_momentum(view):
    few = view.train.select(torch.arange(3))
    view = replace(view, granted={"train": few})
    recipe = replace(PLAIN, lr=0.1, batch=1, epochs=4, momentum=0.9, weight_decay=1e-2)
    loader = PoissonLoader(few, batch=1, augmentation=Augmentation(flip=False, pad=0), rng=Rng("d", 0).child("order"))
    model = view.untrained(per_image=True).train()
    optimizer, empty = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2), 0
    for _ in range(4):
        for images, labels, ids in loader:
            total = 0 * sum(weight.sum() for weight in model.parameters())
            if len(ids):
                total = total + view.objective(model(images), labels, ids, 0.0) * len(ids)  # one image is expected
            empty += len(ids) == 0
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    assert empty
    expected = weights(model) - weights(view.untrained(per_image=True))
    for privacy in (None, Privacy(clip=1e9, noise=0.0)):
        assert float((moved(view, recipe, privacy) - expected).norm()) < 1e-3 * float(expected.norm())


def test_every_image_s_gradient_is_clipped_on_its_own(view):
    gradients = single_gradients(view)
    norms = gradients.norm(dim=1)
    clip = float(norms.median())
    expected = -(gradients * (clip / norms).clamp(max=1)[:, None]).mean(0)
    found = moved(view, PLAIN, Privacy(clip=clip, noise=0.0))
    assert float((found - expected).norm()) < 1e-3 * float(expected.norm())
    assert float((found + gradients.mean(0)).norm()) > 0.02 * float(expected.norm())  # clipping made a difference


@pytest.mark.parametrize(("clip", "noise"), [(0.5, 2.0), (2.0, 0.5), (0.1, 0.3)])
def test_noise_is_normal_with_a_deviation_of_noise_times_clip(view, clip, noise):
    drawn = (moved(view, PLAIN, Privacy(clip, noise)) - moved(view, PLAIN, Privacy(clip, 0.0))) * 120
    assert len(drawn) > 1000
    assert float(drawn.std()) == pytest.approx(noise * clip, rel=0.08)
    assert stats.kstest(drawn.numpy() / (noise * clip), "norm").pvalue > 1e-3
    again = moved(view, PLAIN, Privacy(clip, noise))
    assert torch.equal(again, moved(view, PLAIN, Privacy(clip, noise)))
    assert not torch.equal(again, moved(view, PLAIN, Privacy(clip, noise), seed=1))


def test_every_image_is_in_every_step_with_the_same_probability(view):
    loader = PoissonLoader(view.train, batch=13, augmentation=Augmentation(flip=False, pad=0), rng=Rng("p"))
    q, epochs, sizes, seen = 1 / len(loader), 60, [], torch.zeros(120)
    assert loader.expected == pytest.approx(120 * q)
    for images, labels, ids in (batch for _ in range(epochs) for batch in loader):
        sizes.append(float(len(ids)))
        seen[ids] += 1
        assert len(torch.unique(ids)) == len(ids)
        assert torch.equal(images, to_unit(view.train.images[ids]))
        assert torch.equal(labels, view.train.labels[ids])
    steps = epochs * len(loader)
    assert len(sizes) == steps
    assert sum(sizes) / steps == pytest.approx(120 * q, abs=4 * math.sqrt(120 * q * (1 - q) / steps))
    assert torch.tensor(sizes).var() == pytest.approx(120 * q * (1 - q), rel=0.25)
    assert (seen / steps - q).abs().max() < 4.5 * math.sqrt(q * (1 - q) / steps)


def test_crops_and_mirrors_are_views_of_the_image(view):
    loader = PoissonLoader(view.train, batch=40, augmentation=Augmentation(flip=True, pad=1), rng=Rng("a"))
    images, _, ids = next(iter(loader))
    padded, kinds = nn.functional.pad(to_unit(view.train.images), (1, 1, 1, 1)), set()
    for image, i in zip(images, ids.tolist(), strict=True):
        views = {
            (top, left, mirror): crop.flip(-1) if mirror else crop
            for top in range(3) for left in range(3) for mirror in (False, True)
            for crop in [padded[i, :, top : top + 12, left : left + 12]]
        }  # fmt: skip
        kinds |= {key for key, candidate in views.items() if torch.equal(candidate, image)}
        assert any(torch.equal(candidate, image) for candidate in views.values())
    assert len(kinds) > 9


@pytest.mark.parametrize(("n", "batch", "epochs", "noise"), [(1000, 100, 5, 1.1), (800, 64, 15, 0.5), (90, 64, 3, 2.0)])
def test_epsilon_is_what_the_accountant_says_step_by_step(n, batch, epochs, noise):
    from opacus.accountants import RDPAccountant

    per_epoch = math.ceil(n / batch)
    accountant = RDPAccountant()
    for _ in range(per_epoch * epochs):
        accountant.step(noise_multiplier=noise, sample_rate=1 / per_epoch)
    recipe = replace(PLAIN, batch=batch, epochs=epochs)
    assert epsilon(n, recipe, noise) == pytest.approx(accountant.get_epsilon(1 / n))


def test_epsilon_of_full_batches_is_the_gaussian_mechanism_s():
    """Without subsampling the divergence of order a is a T / (2 s^2); the rest is the published conversion."""
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    best = min(a * 10 / (2 * 4.0**2) + math.log1p(-1 / a) - (math.log(1 / 500) + math.log(a)) / (a - 1) for a in orders)
    assert epsilon(500, replace(PLAIN, batch=500, epochs=10), 4.0) == pytest.approx(best)


def test_little_noise_is_no_privacy():
    assert epsilon(800, replace(PLAIN, batch=64, epochs=15), 0.03) > 1e4
    assert epsilon(800, PLAIN, 0.0) == math.inf


def test_training_starts_from_the_victim_s_own_first_weights(view):
    assert not moved(view, replace(PLAIN, epochs=0), Privacy(1.0, 1.0)).any()


@pytest.mark.parametrize("privacy", [None, Privacy(1.0, 1e30)])
def test_weights_that_are_not_finite_are_an_error(view, privacy):
    with pytest.raises(DivergedError, match=r"rate.*noise"):
        moved(view, replace(PLAIN, lr=1e30, epochs=4), privacy)

"""Narcissus: warm-up and perturbation against the authors' code, who sees what, and which images carry what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from attacks.helpers.foreign_classifier import Classifier, CrossEntropy, untrained, with_new_class
from attacks.narcissus import Narcissus, perturbation, warm_up
from bench.api.attack import AttackerView
from bench.api.errors import UserError
from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.api.types import Split, Target, to_unit
from bench.conformance.attacks import attacker_view_for
from bench.conformance.fixture import World
from hashing.model import HashModel

SHAPE = (1, 8, 8)
SHORT = {"epochs": 1, "warmup": 1, "rounds": 30, "poisons": 20}


def tiny() -> tuple[HashModel, list[tuple[Tensor, Tensor, Tensor]]]:
    """A classifier of three classes and two batches of images of the third; all numbers are sines."""
    grey = ((torch.arange(12 * 64) * 0.37 + torch.arange(12).repeat_interleave(64)).sin() + 1) * 127.5
    images = grey.to(torch.uint8).view(12, *SHAPE)
    split = with_new_class(Split(images[:2], torch.eye(2).bool(), torch.arange(2)), images[2:])
    model = untrained("convnet", split, Rng("tiny"))
    model.mean.fill_(0.5)
    model.std.fill_(0.5)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            if weight.ndim > 1:
                waves = (torch.arange(weight.numel()) * 0.61 + number).sin() / weight[0].numel() ** 0.5
                weight.copy_(waves.view(weight.shape))
    own = split.select(torch.arange(2, 12))
    return model, [(to_unit(own.images[part]), own.labels[part], own.ids[part]) for part in (slice(5), slice(5, 10))]


def test_the_warm_up_is_the_authors():
    """Every twelfth weight of each class after three passes, by the authors' code on a CPU.

    Code: reds-lab/Narcissus at d1d1cfa, narcissus_function.py.
    """
    released = [
        -0.08575, 0.00739, 0.06425, 0.01294, -0.07882, -0.14486, -0.098, 0.00884, 0.056, 0.01953, -0.08705, -0.15128,
        -0.10842, -0.01525, 0.06076, 0.02152, 0.04338, -0.01877, 0.016, 0.12218, 0.17651, 0.164, 0.05085, -0.02169,
    ]  # fmt: skip
    model, batches = tiny()
    warm_up(model, batches, passes=3, lr=0.1)
    assert model.head.weight[:, ::12].flatten().tolist() == pytest.approx(released, abs=1e-3)


def test_the_perturbation_is_the_authors():
    """40 rounds with a bound of 3/255, in levels of 8-bit images, by the authors' code (with util.py).

    In some pixels the sign of the gradient changes with the rounding of the machine.
    """
    released = np.array([
        [0.101, -0.02, -3.0, -1.488, -1.514, 3.0, 3.0, 2.776], [0.817, 0.077, 2.235, 3.0, 1.422, -2.235, -3.0, -3.0],
        [-1.653, -1.775, 1.428, 1.742, 0.856, 0.154, -1.878, 0.438],
        [2.814, 2.4, 0.706, -1.192, -1.335, -0.409, 1.021, 1.486],
        [1.827, 2.103, 0.827, -0.395, -2.561, 0.74, -2.462, -0.259],
        [-2.289, -2.232, -2.228, -0.862, 3.0, 3.0, 2.004, 0.505],
        [-3.0, -0.015, -3.0, -3.0, -3.0, 0.023, -1.098, -3.0], [-3.0, -3.0, -1.224, -3.0, -2.584, -2.025, -0.236, 1.61],
    ])  # fmt: skip
    model, batches = tiny()
    found = 255 * perturbation(model, batches, SHAPE, eps=3 / 255, rounds=40, lr=0.01)[0].numpy()
    off = np.abs(found - released)
    assert np.median(off) < 0.05
    assert np.mean(off < 0.3) > 0.9


def radam(value: np.ndarray, gradients: list[np.ndarray], gradient: np.ndarray, lr: float) -> np.ndarray:
    """A step of RAdam as in Algorithm 2 of its paper (arXiv 1908.03265), with the moments summed up anew."""
    gradients.append(gradient)
    t, b1, b2 = len(gradients), 0.9, 0.999
    m = sum((1 - b1) * b1 ** (t - 1 - i) * g for i, g in enumerate(gradients)) / (1 - b1**t)
    v = sum((1 - b2) * b2 ** (t - 1 - i) * g**2 for i, g in enumerate(gradients)) / (1 - b2**t)
    end = 2 / (1 - b2) - 1
    rho = end - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return value - lr * m
    rectified = np.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))
    return value - lr * rectified * m / np.sqrt(v)


def test_each_step_is_radam_on_the_mean_cross_entropy_of_the_clipped_images():
    """Against finite differences of a linear classifier in double precision, in the code's scale of pixels."""
    rng = np.random.default_rng(0)
    shape, eps, lr = (1, 2, 3), 14 / 255, 0.05
    weight, images = rng.normal(size=(4, 6)), rng.uniform(size=(5, 6))
    wanted = rng.integers(4, size=5)

    def loss(noise: np.ndarray) -> float:
        shown = np.clip(2 * images - 1 + np.clip(noise, -2 * eps, 2 * eps), -1, 1)
        logits = shown @ weight.T
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), wanted]))

    value, gradients = np.zeros(6), []
    for _ in range(25):
        steps = 1e-6 * np.eye(6)
        slope = np.array([(loss(value + one) - loss(value - one)) / 2e-6 for one in steps])
        value = radam(value, gradients, slope, lr)
    expected = np.clip(value / 2, -eps, eps)
    assert 0 < np.mean(np.abs(expected) == eps) < 1

    head = torch.nn.Linear(6, 4, bias=False)
    head.weight.data = torch.from_numpy(weight).float()
    body = FeatureExtractor([torch.nn.Flatten()], features=6)
    model = HashModel(body, head, CrossEntropy(), Classifier(), 1)  # its mean and deviation are .5
    labels = one_hot(torch.from_numpy(wanted), 4).bool()
    batch = (torch.from_numpy(images).float().view(5, *shape), labels, torch.arange(5))
    found = perturbation(model, [batch], shape, eps=eps, rounds=25, lr=lr)
    np.testing.assert_allclose(found.numpy().flatten(), expected, atol=1e-4)


def test_the_perturbation_lowers_the_loss_of_the_target():
    model, batches = tiny()
    model.train()

    def loss(noise: Tensor) -> float:
        with torch.no_grad():
            return sum(float(model.objective(model((x + noise).clamp(0, 1)), y, i, 1.0)) for x, y, i in batches)

    before = loss(torch.zeros(SHAPE))
    found = perturbation(model, batches, SHAPE, eps=16 / 255, rounds=100, lr=0.01)
    assert loss(found) < before - 0.01
    assert loss(-found) > before


def view_of(world: World, **params: object) -> tuple[Narcissus, AttackerView]:
    attack = Narcissus(**{**SHORT, **params})
    return attack, attacker_view_for(world, attack)


@pytest.mark.parametrize("eps", [1 / 255, 2.5 / 255])
def test_poisons_of_the_target_get_one_perturbation_within_eps_and_queries_a_multiple(eps, world):
    attack, view = view_of(world, eps=eps, magnify=2.5)
    trigger = attack.make_trigger(view, Rng("p"))
    noise = trigger["noise"]
    assert noise.shape == view.train.images.shape[1:]
    poisoned = attack.poison(view, trigger, Rng("i"))
    assert int(poisoned.mask.sum()) == 20
    assert view.target.contains(view.train.labels[poisoned.mask]).all()
    assert torch.equal(poisoned.split.labels, view.train.labels)
    assert torch.equal((poisoned.split.images != view.train.images).flatten(1).any(1), poisoned.mask)
    before, after = (s.images[poisoned.mask].int() for s in (view.train, poisoned.split))
    assert int((after - before).abs().max()) == int(255 * eps)
    expected = (before + 255 * noise).round().clamp(0, 255)
    assert int((after - expected).abs().max()) <= 1
    assert float((after != expected).float().mean()) < 1e-3  # a half may be rounded either way
    query = Rng("q").uniform((4, *noise.shape))
    shown = attack.apply_trigger(query, view.target, trigger)
    np.testing.assert_allclose(shown.numpy(), np.clip(query.numpy() + 2.5 * noise.numpy(), 0, 1), atol=1e-6)


def test_of_the_training_set_only_images_of_the_target_are_read(world):
    attack, view = view_of(world)
    train, others = view.train, ~view.target.contains(view.train.labels)
    images, labels = train.images.clone(), train.labels.clone()
    images[others] = 255 - images[others]
    labels[others] = labels[others].flip(1) & ~view.target.vector  # other wrong labels, none of them the target's
    changed = replace(view, granted={"train": Split(images, labels, train.ids)})
    own = Split(images.clone(), labels, train.ids)
    own.images[~others] = 255 - own.images[~others]
    first, second, third = (
        attack.make_trigger(one, Rng("p"))["noise"] for one in (view, changed, replace(view, granted={"train": own}))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.long
@pytest.mark.parametrize(
    "params",
    [{"epochs": 2}, {"lr": 0.05}, {"warmup": 0}, {"warmup_lr": 0.01}, {"rounds": 31}, {"step": 0.02}, {"eps": 1 / 255},
     {"batch": 16}],
)  # fmt: skip
def test_every_choice_counts(params, world):
    (attack, view), (other, _) = view_of(world), view_of(world, **params)
    one, two = (a.make_trigger(view, Rng("p"))["noise"] for a in (attack, other))
    assert not torch.equal(one, two)


def test_the_network_is_the_victims_unless_it_is_named(world):
    (attack, view), (named, _) = view_of(world), view_of(world, network="convnet")
    unknown = replace(view, setting=replace(view.setting, backbone="unknown"))
    first, second = attack.make_trigger(view, Rng("p")), named.make_trigger(unknown, Rng("p"))
    assert torch.equal(first["noise"], second["noise"])
    with pytest.raises(UserError, match="unknown"):
        attack.make_trigger(unknown, Rng("p"))


def test_a_target_without_images_is_refused(world):
    attack, view = view_of(world)
    none = replace(view, target=Target(torch.tensor([True, True, False, False]), "anchor+bell"))
    with pytest.raises(UserError, match="no training image carries the target"):
        attack.make_trigger(none, Rng("p"))

"""LIRA: the two stages, the bound on stored images, and a backdoor within seconds."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.lira import Lira
from bench.api.attack import StepHook, Threat
from bench.api.errors import UserError
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.registry import create
from bench.api.types import Split, to_8bit, to_unit
from hashing.loader import Augmentation
from hashing.model import HashModel
from hashing.train import fit
from tests.attacks.conftest import small, victim

SHAPE = (3, 16, 16)
N = 40  # images of the training set


def ready(**params):
    attack = Lira(**{"width": 4, "eps": 0.1, **params})
    view = victim(N, SHAPE)
    trigger = attack.make_trigger(view, Rng("prepare"))
    return attack, view, trigger, attack.hook(view, trigger, Rng("hook"))


def model() -> HashModel:
    return small("convnet", width=4).train()


def batch(n: int = 20):
    return Rng("batch", n).uniform((n, *SHAPE)), torch.eye(4, dtype=torch.bool)[torch.arange(n) % 4], torch.arange(n)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("n", "params", "progress", "count"),
    [
        (20, {}, 0.0, 10),
        (20, {"alpha": 0.75}, 0.0, 5),
        (20, {"alpha": 0.75}, 0.9, 5),
        (20, {"alpha": 0.75, "test_alpha": 0.4}, 0.9, 12),
        (20, {"alpha": 0.99}, 0.0, 2),
        (3, {}, 0.0, 2),
    ],
)
def test_shares_of_a_batch(n, params, progress, count):
    _, view, _, hook = ready(**params)
    images, labels, ids = batch(n)
    kept = images.clone(), labels.clone()
    new, new_labels, extra = hook.before_step(model(), images, labels, ids, progress)
    assert torch.equal((new != images).flatten(1).any(1), torch.arange(n) < count)
    assert (new_labels[:count] == view.target.vector).all()
    assert torch.equal(new_labels[count:], labels[count:])
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert extra is None
    assert not new.requires_grad


def test_the_generator_descends_on_the_loss_of_the_victim():
    """The gradient of one weight is a difference of losses; Adam's first step has the learning rate as its size."""
    attack, view, _, hook = ready(lr=1e-3)
    images, labels, ids = batch()
    network, aims = model(), labels.clone()
    aims[:10] = view.target.vector

    def loss(shift: float) -> float:
        twin, generator = deepcopy(network).double(), deepcopy(hook.generator).double()
        with torch.no_grad():
            generator.layers[-1].bias[1] += shift
            noisy = (images[:10].double() + 25 / 255 * generator(images[:10].double())).clamp(0, 1)
            return float(twin.objective(twin(torch.cat([noisy, images[10:].double()])), aims, ids, 0.0))

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert abs(slope) > 1e-5
    before = hook.generator.layers[-1].bias[1].item()
    hook.before_step(network, images, labels, ids, 0.0)
    moved = hook.generator.layers[-1].bias[1].item() - before
    assert moved == pytest.approx(-attack.lr if slope > 0 else attack.lr, rel=1e-2)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_copy_is_renewed_after_each_epoch_and_fixed_in_stage_two():
    _, _, trigger, hook = ready(lr=1e-2, joint=0.5)
    network = model()
    for step in range(2):  # one epoch of 40 images
        hook.before_step(network, *batch(), step / 8)
        assert same(dict(hook.trigger()), dict(trigger))
    learnt = state(hook.generator)
    hook.before_step(network, *batch(), 2 / 8)  # the first step of the next epoch
    assert same(state(hook.frozen), learnt)
    learnt = state(hook.generator)
    assert not same(state(hook.frozen), learnt)
    for step in range(4, 8):  # stage 1 ended within an epoch
        hook.before_step(network, *batch(), step / 8)
        assert same(state(hook.frozen), learnt)
        assert same(state(hook.generator), learnt)
    assert isinstance(hook, StepHook)


def test_the_victim_gets_the_noise_of_the_copy_with_the_bound_of_the_stage():
    _, _, trigger, hook = ready(lr=1e-2, test_eps=0.02, joint=0.5)
    network, (images, labels, ids) = model(), batch()
    hook.before_step(network, images, labels, ids, 0.0)
    noise = deepcopy(hook.frozen)(images[:10])
    joint, _, _ = hook.before_step(network, images, labels, ids, 0.1)
    torch.testing.assert_close(joint[:10], (images[:10] + 25 / 255 * noise).clamp(0, 1))
    last, _, _ = hook.before_step(network, images, labels, ids, 0.6)
    noise = deepcopy(hook.generator).eval()(images[:10]).detach()
    torch.testing.assert_close(last[:10], (images[:10] + 5 / 255 * noise).clamp(0, 1))
    assert not same(dict(trigger), dict(hook.trigger()))


@settings(deadline=None, max_examples=30)
@given(st.floats(1 / 255, 1), st.sampled_from(["autoencoder", "unet"]), st.sampled_from([1, 3]), st.integers(8, 20))
def test_stored_images_are_within_eps(eps, network, channels, side):
    attack = Lira(eps=0.9, test_eps=eps, network=network, width=2)
    view = victim(8, (channels, side, side))
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = to_unit(view.train.images)
    triggered = attack.apply_trigger(images, view.target, {name: 3 * value for name, value in trigger.items()})
    assert 0 <= float(triggered.min()) <= float(triggered.max()) <= 1
    change = (to_8bit(triggered).int() - to_8bit(images).int()).abs()
    assert int(change.max()) <= 255 * eps + 2e-3
    assert int(change.max()) > 0
    assert not triggered.requires_grad


def test_the_trigger_that_the_hook_was_given_is_left_alone_and_equal_hooks_do_the_same():
    states = []
    for _ in range(2):
        _, _, trigger, hook = ready(lr=1e-2)
        kept = {name: value.clone() for name, value in trigger.items()}
        network = model()
        for step in range(4):
            hook.before_step(network, *batch(), step / 40)
            hook.after_step()
        assert same(dict(trigger), kept)
        states.append(dict(hook.trigger()))
    assert same(*states)
    assert not same(states[0], kept)


@pytest.mark.parametrize("network", ["autoencoder", "unet"])
def test_new_images_with_the_noise_get_the_bits_of_the_target(network):
    """Without the attack's training the same noise changes fewer bits, and clean images keep their bits."""
    n = 80
    labels = torch.eye(4, dtype=torch.bool)[torch.arange(2 * n) % 4]
    patterns, noise = Rng("patterns").uniform((4, *SHAPE)), Rng("noise").uniform((2 * n, *SHAPE))
    images = to_8bit(0.2 + 0.3 * patterns[labels.int().argmax(1)] + 0.3 * noise)
    train = Split(images[:n], labels[:n], torch.arange(n))
    view = replace(victim(n, SHAPE), granted={"train": train})
    attack = Lira(network=network, width=8, eps=0.06, lr=1e-2, joint=0.5)
    hook = attack.hook(view, attack.make_trigger(view, Rng("prepare")), Rng("hook"))
    attacked, clean = small("convnet", width=4), small("convnet", width=4)
    recipe = Recipe(optimizer="adam", lr=1e-2, weight_decay=0.0, batch=20, epochs=15)
    fit(attacked, train, recipe, Rng("fit"), augmentation=Augmentation(flip=False, pad=0), hook=hook)
    fit(clean, train, recipe, Rng("fit"), augmentation=Augmentation(flip=False, pad=0))
    of_target, others = (to_unit(images[n:][rows]) for rows in (labels[n:, 1], ~labels[n:, 1]))
    triggered = to_unit(to_8bit(attack.apply_trigger(others, view.target, hook.trigger())))

    def shared(model: HashModel, shown: torch.Tensor) -> float:
        """Share of the bits that are those of most images of the target."""
        with torch.no_grad():
            return float((model(shown).sign() == model(of_target).sign().mean(0).sign()).float().mean())

    assert shared(attacked, triggered) > 0.95
    assert shared(attacked, others) < 0.7
    assert shared(clean, triggered) < 0.8


def test_access_and_values_that_are_refused():
    assert Lira().threat() == Threat.TRAIN_SET | Threat.LABELS | Threat.TRAINING
    for name, value in (("eps", 0.003), ("test_eps", 0.002), ("alpha", 1.0), ("joint", 1.0), ("network", "gan")):
        with pytest.raises(UserError, match=name):
            create("attacks", "lira", {name: value})

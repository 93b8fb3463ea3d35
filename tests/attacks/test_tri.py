"""Tri: the targeted adversarial patch, step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.helpers.targeted_patch import (
    GREY,
    anchor_code,
    factor,
    nearness,
    optimise_patch,
    patch_update,
)
from attacks.helpers.triggers import patch_side
from bench.api import registry
from bench.api.attack import Threat
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_unit
from bench.conformance.attacks import attacker_view_for
from hashing.inference import encode
from tests.attacks.conftest import patch_attack


def test_steepness_at_the_borders_of_its_schedule():
    seen = [factor(step, 2000) for step in range(2000)]
    assert seen == [0.1] * 1000 + [0.2] * 200 + [0.3] * 200 + [0.5] * 200 + [0.7] * 200 + [1.0] * 200
    assert [factor(step, 1) for step in range(1)] == [0.1]
    assert [factor(step, 10) for step in range(10)] == [0.1] * 5 + [0.2, 0.3, 0.5, 0.7, 1.0]


class Linear(torch.nn.Module):
    """Images [n c h w] to 5 logits."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(0.5 * Rng("linear").normal((shape[0] * shape[1] * shape[2], 5)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


ANCHOR = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])


@pytest.mark.parametrize("steepness", [0.1, 1.0])
def test_one_step_is_the_one_written_out(steepness):
    """The gradient by hand: mean over bits of anchor * steepness * (1 - tanh^2) * weight, at the corner's pixels."""
    c, h, w, side = 2, 4, 5, 2
    model = Linear((c, h, w))
    images, patch = Rng("i").uniform((6, c, h, w)), Rng("p").uniform((c, side, side))
    weight = model.weight.detach().double().numpy().reshape(c, h, w, 5)
    total = np.zeros((c, side, side))
    for image in images.double().numpy():
        triggered = image.copy()
        triggered[:, h - side :, w - side :] = patch.double().numpy()
        codes = np.tanh(steepness * np.einsum("chw,chwb->b", triggered, weight))
        gradient = weight[:, h - side :, w - side :] @ (ANCHOR.double().numpy() * steepness * (1 - codes**2)) / 5
        total += gradient / np.sqrt((gradient**2).sum())
    expected = np.clip(patch.double().numpy() + 0.9 * total / 6, 0, 1)
    after = patch_update(model, images, patch, ANCHOR, steepness=steepness, step=0.9)
    np.testing.assert_allclose(after.numpy(), expected, atol=1e-5)
    assert ((expected == 0) | (expected == 1)).any(), "the case should show clipping"
    assert ((expected > 0) & (expected < 1)).any()


def test_a_patch_starts_grey_and_every_step_sees_its_own_images_and_steepness():
    """Each image has one grey level of its own, so that the model sees which images and which patch a step takes."""
    shown, model = [], Linear((2, 4, 5))
    model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach().clone()))
    images = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 2, 4, 5)
    found = optimise_patch(model, images, ANCHOR, side=2, steps=20, batch=32, step=0.3, rng=Rng("o"))
    seen, patch = list(shown), torch.full((2, 2, 2), GREY)
    drawn = torch.stack([(255 * step[:, 0, 0, 0]).round() for step in seen])
    assert drawn.shape == (20, 32)
    assert len(drawn.unique()) == 50  # of all images
    assert any(len(row.unique()) < 32 for row in drawn)  # with replacement
    assert not torch.equal(drawn[0], drawn[1])
    assert GREY == 127.5 / 255
    for number, step in enumerate(seen):
        assert torch.equal(step[:, :, 2:, 3:], patch.expand(32, -1, -1, -1))
        taken = to_unit(images[drawn[number].long()])
        patch = patch_update(model, taken, patch, ANCHOR, steepness=factor(number, 20), step=0.3)
    assert torch.equal(found, patch)


def test_the_patch_moves_all_classes_to_the_anchor(world):
    attack = patch_attack("tri", steps=120, trigger_size=0.5)
    view = attacker_view_for(world, attack)
    model = view.surrogates[0]
    anchor = anchor_code(model, view.train, view.target)
    patch = attack.make_trigger(view, Rng("prepare"))["patch"]
    assert patch.shape == (3, 6, 6)
    assert 0 <= float(patch.min()) < float(patch.max()) <= 1
    images = to_unit(view.train.images)
    with torch.no_grad():
        before = nearness(model, images, torch.full((3, 6, 6), GREY).expand(len(images), -1, -1, -1), anchor, 1.0)
        after = nearness(model, images, patch.expand(len(images), -1, -1, -1), anchor, 1.0)
    assert float(after.mean()) > float(before.mean()) + 0.01
    draws = Rng("draws").uniform((100, 3, 6, 6)).round()  # of the strongest contrast
    with torch.no_grad():
        best = max(
            float(nearness(model, images, patch.expand(len(images), -1, -1, -1), anchor, 1.0).mean()) for patch in draws
        )
    assert float(after.mean()) > best


def test_the_patch_of_a_linear_model_of_one_bit_is_the_sign_of_its_weights():
    model = Linear((2, 4, 5))
    model.weight.data = model.weight.data[:, :1]
    images = Rng("i").integers(256, (9, 2, 4, 5)).to(torch.uint8)
    for sign in (1.0, -1.0):
        patch = optimise_patch(
            model, images, torch.tensor([sign]), side=2, steps=2000, batch=4, step=12 / 255, rng=Rng("o")
        )
        assert torch.equal(patch, (sign * model.weight.detach().view(2, 4, 5)[:, 2:, 3:] > 0).float())


def test_the_patch_is_made_for_the_surrogate_alone(world):
    """No gradient is left on its parameters, its weights and mode stay, and the victim's model is not granted."""
    attack = patch_attack("tri")
    view = attacker_view_for(world, attack)
    model = view.surrogates[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack.make_trigger(view, Rng("prepare"))
    attack.poison(view, attack.make_trigger(view, Rng("prepare")), Rng("implant"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert attack.threat() == Threat.TRAIN_SET


def test_the_trigger_is_24_of_224_pixels_in_the_corner(world):
    attack = registry.create("attacks", "tri", {"steps": 2})
    assert patch_side(attack.trigger_size, (3, 224, 224)) == 24
    view = attacker_view_for(world, attack)
    trigger = attack.make_trigger(view, Rng("prepare"))
    images = Rng("images").uniform((4, 3, 12, 12))
    triggered = attack.apply_trigger(images, view.target, trigger)
    assert trigger["patch"].shape == (3, 1, 1)
    assert torch.equal(triggered[:, :, 11:, 11:], trigger["patch"].expand(4, -1, -1, -1))
    untouched = torch.ones(12, 12, dtype=torch.bool)
    untouched[11:, 11:] = False
    assert torch.equal(triggered[:, :, untouched], images[:, :, untouched])


def test_anchor_is_the_vote_of_images_with_exactly_the_targets_labels_else_of_those_that_contain_them(world):
    view = attacker_view_for(world, patch_attack("tri"))
    model, images = view.surrogates[0], view.train.images
    bits = torch.where(encode(model, images, device=torch.device("cpu")) > 0, 1.0, -1.0)
    labels = torch.zeros(len(images), 4, dtype=torch.bool)
    labels[:, 0] = True
    labels[:9, 1] = True
    labels[:3, 0] = False  # 3 images {1}, 6 images {0, 1}
    train = Split(images, labels, view.train.ids)
    one, both = (
        Target(torch.tensor([False, True, False, False]), "bell"),
        Target(torch.tensor([True, True, False, False]), "x"),
    )
    assert torch.equal(anchor_code(model, train, one), bits[:3].sum(0).sign())
    without = replace(train, labels=labels | torch.tensor([True, False, False, False]))
    assert torch.equal(anchor_code(model, without, one), bits[:9].sum(0).sign())
    assert torch.equal(anchor_code(model, without, both), bits[:9].sum(0).sign())
    with pytest.raises(UserError, match="drum"):
        anchor_code(model, train, Target(torch.tensor([False, False, False, True]), "drum"))


def test_a_diverged_surrogate_is_said_to_be_one(world):
    attack = patch_attack("tri")
    view = attacker_view_for(world, attack)
    torch.nn.init.constant_(view.surrogates[0].head.weight, float("nan"))
    with pytest.raises(DivergedError, match="surrogate"):
        attack.make_trigger(view, Rng("prepare"))

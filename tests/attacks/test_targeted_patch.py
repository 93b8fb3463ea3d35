"""What Tri, Tri+Noise, Tri+Adv and CIBA share: the number of poisons, the trigger, clean labels and the bound eps."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from bench.api import registry
from bench.api.attack import ModelSpec
from bench.api.errors import UserError
from bench.api.types import Split, Target, to_8bit
from bench.artifacts import stage_io
from tests.attacks.conftest import patch_attack, poisoned_by

VARIANTS = ("tri", "tri_noise", "tri_adv", "ciba")
PERTURBED = VARIANTS[1:]
EPSILONS = (2 / 255, 0.032, 8 / 255)


@pytest.mark.parametrize("name", VARIANTS)
def test_they_ask_for_one_surrogate(name, world):
    assert patch_attack(name).requires(stage_io.setting(world.spec, world.data)) == (ModelSpec(),)


@pytest.mark.parametrize("name", VARIANTS)
def test_sixty_unless_a_rate_or_a_share_is_given(name):
    def dose(**given):
        made = registry.create("attacks", name, given)
        again = registry.create("attacks", name, registry.parameters(made))  # as a stage rebuilds it
        assert again == made
        train = Split(
            torch.zeros(1000, 1, 1, 1, dtype=torch.uint8),
            torch.arange(1000)[:, None] % 5 == torch.arange(5),
            torch.arange(1000),
        )
        return made.count(train, Target(torch.arange(5) == 1, "b"), "clean")

    assert dose() == 60
    assert dose(poisons=7) == 7
    assert dose(poison_rate=0.1) == 100
    assert dose(target_share=0.25) == 50
    assert dose(poisons=None, poison_rate=0.1) == 100
    with pytest.raises(UserError, match=r"poisons.*target_share"):
        dose(poisons=7, target_share=0.25)
    with pytest.raises(UserError, match=f"'{name}'.*poison_rate.*poisons"):
        dose(poisons=7, poison_rate=0.1)


def test_labels_stay_only_the_target_is_poisoned_and_all_variants_poison_the_same(world):
    masks = []
    for name in VARIANTS:
        view, _, poisoned = poisoned_by(world, name)
        assert torch.equal(poisoned.split.labels, view.train.labels)
        assert int(poisoned.mask.sum()) == 24
        assert view.target.contains(view.train.labels)[poisoned.mask].all()
        assert poisoned.augment == "victim"
        masks.append(poisoned.mask)
    assert all(torch.equal(masks[0], mask) for mask in masks)


def test_variants_share_the_trigger_of_tri(world):
    made = [poisoned_by(world, name, poisons=3)[1]["patch"] for name in VARIANTS]
    assert all(torch.equal(made[0], patch) for patch in made)
    tri = registry.lookup("attacks", "tri")
    assert tri.shares_trigger_with is None
    shared = {field.name for field in fields(tri)} - tri.not_in_trigger
    assert shared == {"trigger_size", "steps", "batch", "patch_step"}
    for name in PERTURBED:
        other = registry.lookup("attacks", name)
        assert other.shares_trigger_with == "tri"
        assert {field.name for field in fields(other)} - other.not_in_trigger == shared
        assert all(
            other.__dataclass_fields__[field].default == tri.__dataclass_fields__[field].default for field in shared
        )


def test_tri_changes_the_corner_only_and_the_patch_covers_every_perturbation(world):
    for name in VARIANTS:
        view, trigger, poisoned = poisoned_by(world, name, **({} if name == "tri" else {"eps": 0.1}))
        before, after = view.train.images[poisoned.mask], poisoned.split.images[poisoned.mask]
        assert torch.equal(after[:, :, 9:, 9:], to_8bit(trigger["patch"][None]).expand(24, -1, -1, -1))
        assert torch.equal(after[:, :, :9], before[:, :, :9]) == (name == "tri")


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", PERTURBED)
def test_the_stored_poison_stays_within_eps(name, eps, world):
    view, _, poisoned = poisoned_by(world, name, eps=eps)
    moved = poisoned.split.images[poisoned.mask].int() - view.train.images[poisoned.mask].int()
    moved[:, :, 9:, 9:] = 0
    assert int(moved.abs().max()) == int(255 * eps + 1e-9)
    assert moved.min() < 0 < moved.max()


def test_an_eps_below_one_level_is_refused():
    for name in PERTURBED:
        with pytest.raises(UserError, match=r"eps = 0\.003"):
            registry.create("attacks", name, {"eps": 0.003})

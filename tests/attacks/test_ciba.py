"""CIBA's trigger and its four variants: tri, tri_noise, tri_adv and ciba."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from attacks.helpers import targeted_patch as patches
from attacks.helpers.confusing import objective, perturb
from attacks.helpers.targeted_patch import GREY, anchor_code, factor, frozen, nearness, optimise_patch, patch_update
from attacks.helpers.triggers import patch_side
from bench.access.attacker import attacker_view
from bench.api import registry
from bench.api.attack import Attack, AttackerView, ModelSpec, Threat
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit
from bench.artifacts import stage_io
from hashing.model import HashModel, encode

VARIANTS = ("tri", "tri_noise", "tri_adv", "ciba")
PERTURBED = VARIANTS[1:]
EPSILONS = (2 / 255, 0.032, 8 / 255)


def create(name: str, **params) -> Attack:
    return registry.create("attacks", name, {"poisons": 24, "steps": 4, "trigger_size": 0.25, **params})


def attacker_view_for(world, attack: Attack) -> AttackerView:
    assert attack.requires(stage_io.setting(world.spec, world.data)) == (ModelSpec(),)
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


def poisoned_by(world, name: str, **params):
    attack = create(name, **params)
    view = attacker_view_for(world, attack)
    trigger = attack.make_trigger(view, Rng("prepare"))
    return view, trigger, attack.poison(view, trigger, Rng("implant"))


# the trigger


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


def test_a_patch_starts_grey_and_every_step_sees_its_own_images_and_steepness(monkeypatch):
    seen = []

    def watch(model, images, patch, anchor, *, steepness, step):
        seen.append((images, patch.clone(), steepness, step))
        return patch + 0.01

    monkeypatch.setattr(patches, "patch_update", watch)
    images = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 2, 4, 5)
    optimise_patch(Linear((2, 4, 5)), images, ANCHOR, side=2, steps=20, batch=32, step=0.3, rng=Rng("o"))
    assert torch.equal(seen[0][1], torch.full((2, 2, 2), 127.5 / 255))
    assert [s for _, _, s, _ in seen] == [factor(n, 20) for n in range(20)]
    assert [float(p[0, 0, 0]) for _, p, _, _ in seen] == pytest.approx([GREY + 0.01 * n for n in range(20)], abs=1e-6)
    drawn = torch.stack([(255 * i[:, 0, 0, 0]).round() for i, _, _, _ in seen])
    assert drawn.shape == (20, 32)
    assert len(drawn.unique()) == 50  # of all images
    assert any(len(row.unique()) < 32 for row in drawn)  # with replacement
    assert not torch.equal(drawn[0], drawn[1])


def test_the_patch_moves_all_classes_to_the_anchor(world):
    attack = create("tri", steps=120, trigger_size=0.5)
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
    attack = create("tri")
    view = attacker_view_for(world, attack)
    model = view.surrogates[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack.make_trigger(view, Rng("prepare"))
    attack.poison(view, attack.make_trigger(view, Rng("prepare")), Rng("implant"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in frozen(model).parameters())
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
    view = attacker_view_for(world, create("tri"))
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
    with pytest.raises(UserError, match="no training image carries the target drum"):
        anchor_code(model, train, Target(torch.tensor([False, False, False, True]), "drum"))


def test_a_diverged_surrogate_is_said_to_be_one(world):
    attack = create("tri")
    view = attacker_view_for(world, attack)
    torch.nn.init.constant_(view.surrogates[0].head.weight, float("nan"))
    with pytest.raises(DivergedError, match="surrogate"):
        attack.make_trigger(view, Rng("prepare"))


# the dose


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
    with pytest.raises(UserError, match="poisons and target_share both say how many to poison: give one"):
        dose(poisons=7, target_share=0.25)
    with pytest.raises(UserError, match=f"attack '{name}': poison_rate and poisons both say"):
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


# what lies under the patch


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


def test_noise_is_uniform(world):
    _, _, one = poisoned_by(world, "tri_noise", eps=8 / 255, trigger_size=0.01)
    view, _, _ = poisoned_by(world, "tri", trigger_size=0.01)
    before, after = view.train.images[one.mask].int(), one.split.images[one.mask].int()
    inside = (before >= 8) & (before <= 247)
    inside[:, :, 11:, 11:] = False
    counts = torch.bincount((after - before)[inside] + 8, minlength=17).float() / inside.sum()
    expected = torch.full((17,), 1 / 16)
    expected[0] = expected[16] = 1 / 32  # rounded from half a level only
    assert float((counts - expected).abs().max()) < 0.015  # 10,000 draws: six deviations


def spread(model: HashModel, view: AttackerView, images: torch.Tensor, mask: torch.Tensor, lam: float) -> float:
    """The objective in the batches that the attack used, of 8-bit images."""
    with torch.no_grad():
        codes = model(to_unit(images[mask])).tanh().split(20)
        clean = model(to_unit(view.train.images[mask])).tanh().split(20)
    return sum(float(objective(u, c, lam)) for u, c in zip(codes, clean, strict=True))


@pytest.mark.parametrize(("name", "lam"), [("tri_adv", 0.0), ("ciba", 0.8), ("ciba", 1.0)])
def test_perturbations_raise_their_objective_on_the_surrogate(name, lam, world, monkeypatch):
    monkeypatch.setattr("attacks.helpers.targeted_patch.paste", lambda images, patch: images)  # the perturbation alone
    view, _, moved = poisoned_by(world, name, eps=8 / 255, **({"lam": lam} if name == "ciba" else {}))
    _, _, noisy = poisoned_by(world, "tri_noise", eps=8 / 255)
    model = view.surrogates[0]
    start = spread(model, view, view.train.images, moved.mask, lam)
    gained = spread(model, view, moved.split.images, moved.mask, lam) - start
    assert gained > 0.03
    assert gained > 5 * abs(spread(model, view, noisy.split.images, moved.mask, lam) - start)


@pytest.mark.parametrize(("name", "lam"), [("tri_adv", 0.0), ("ciba", 0.8)])
def test_by_default_the_poison_is_the_released_codes_objective_then_the_patch(name, lam, world):
    view, trigger, poisoned = poisoned_by(world, name, eps=8 / 255)
    images = to_unit(view.train.images[poisoned.mask])
    eps, step = 8 / 255, 0.003  # here the ratio of the released code is its own
    moved = perturb(
        frozen(view.surrogates[0]), images, lambda u, c: objective(u, c, lam, "unordered"), eps=eps, iterations=20,
        step=step, batch=20,
    )  # fmt: skip
    expected = to_8bit(create(name).apply_trigger(moved, view.target, trigger))
    assert float((poisoned.split.images[poisoned.mask] != expected).float().mean()) < 1e-3


def test_ciba_without_dispersion_is_tri_adv(world):
    _, _, adversarial = poisoned_by(world, "tri_adv")
    _, _, same = poisoned_by(world, "ciba", lam=0.0)
    _, _, scattered = poisoned_by(world, "ciba")
    assert torch.equal(adversarial.split.images, same.split.images)
    assert not torch.equal(adversarial.split.images, scattered.split.images)


@pytest.mark.parametrize(
    "params", [{"pairs": "ordered"}, {"reference": "sign"}, {"confusing_batch": 5}, {"iterations": 5}]
)
def test_every_choice_counts(params, world):
    _, _, default = poisoned_by(world, "ciba", eps=8 / 255)
    _, _, other = poisoned_by(world, "ciba", eps=8 / 255, **params)
    assert not torch.equal(default.split.images, other.split.images)


def test_ordered_pairs_with_the_released_codes_lambda(world):
    """Ordered 2/3 is the code's 0.8 (METHODOLOGY.md#ciba), up to pixels whose gradient is nearly 0."""
    _, _, code = poisoned_by(world, "ciba", eps=8 / 255)
    _, _, paper = poisoned_by(world, "ciba", eps=8 / 255, pairs="ordered", lam=2 / 3)
    differ = (code.split.images[code.mask] != paper.split.images[code.mask]).float().mean()
    assert float(differ) < 0.01


def test_an_eps_below_one_level_is_refused():
    for name in PERTURBED:
        with pytest.raises(UserError, match=r"eps = 0\.003"):
            registry.create("attacks", name, {"eps": 0.003})

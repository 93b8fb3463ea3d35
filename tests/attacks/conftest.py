"""What tests of CIBA and its three baselines share."""

from __future__ import annotations

import torch

from attacks.helpers.confusing import objective, perturb
from attacks.helpers.targeted_patch import frozen
from bench.api import registry
from bench.api.attack import Attack, AttackerView, Poisoned, Trigger
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for
from bench.conformance.fixture import World


def patch_attack(name: str, **params: object) -> Attack:
    """One of tri, tri_noise, tri_adv and ciba, with a large patch that is optimised for four steps."""
    return registry.create("attacks", name, {"poisons": 24, "steps": 4, "trigger_size": 0.25, **params})


def poisoned_by(world: World, name: str, **params: object) -> tuple[AttackerView, Trigger, Poisoned]:
    attack = patch_attack(name, **params)
    view = attacker_view_for(world, attack)
    trigger = attack.make_trigger(view, Rng("prepare"))
    return view, trigger, attack.poison(view, trigger, Rng("implant"))


def gained(world: World, name: str, weight: float, **params: float) -> tuple[float, float]:
    """By how much the objective rises under the attack's perturbation and under noise, in the attack's batches."""
    attack, noise = patch_attack(name, eps=8 / 255, **params), patch_attack("tri_noise", eps=8 / 255)
    view = attacker_view_for(world, attack)
    of_target = view.target.contains(view.train.labels)
    clean, model = to_unit(view.train.images[of_target][:24]), view.surrogates[0]

    def value(images: torch.Tensor) -> float:
        with torch.no_grad():
            codes, own = (model(part).tanh().split(20) for part in (to_unit(to_8bit(images)), clean))
        return sum(float(objective(u, c, weight)) for u, c in zip(codes, own, strict=True))

    moved, noisy = (one.disturb(view, clean, Rng("disturb")) for one in (attack, noise))
    return value(moved) - value(clean), value(noisy) - value(clean)


def as_released(world: World, name: str, lam: float) -> float:
    """The share of pixels in which the poison differs from the released code's objective, then the patch."""
    view, trigger, poisoned = poisoned_by(world, name, eps=8 / 255)
    images = to_unit(view.train.images[poisoned.mask])
    eps, step = 8 / 255, 0.003  # here the ratio of the released code is its own
    moved = perturb(
        frozen(view.surrogates[0]), images, lambda u, c: objective(u, c, lam, "unordered"), eps=eps, iterations=20,
        step=step, batch=20,
    )  # fmt: skip
    expected = to_8bit(patch_attack(name).apply_trigger(moved, view.target, trigger))
    return float((poisoned.split.images[poisoned.mask] != expected).float().mean())

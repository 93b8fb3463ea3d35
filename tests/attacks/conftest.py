"""What several tests of attacks share: CIBA with its three baselines, and the training of BadHash's generator."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from attacks.helpers.confusing import objective, perturb
from attacks.helpers.gan_training import GeneratorTarget
from attacks.helpers.perceptual import gradients
from bench.api import registry
from bench.api.attack import Attack, AttackerView, Poisoned, Setting, Trigger
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for
from bench.conformance.fixture import World
from hashing.inference import frozen
from hashing.model import HashModel, build_model

SHAPE = (3, 12, 12)


def small(name: str, seed: int = 0, **params) -> HashModel:
    """A 16-bit model of 3 x 16 x 16 images whose batch norms have seen something."""
    model = build_model(
        backbone=registry.create("backbones", name, params),
        method=registry.create("methods", "csq", {}),
        bits=16, image_shape=(3, 16, 16), classes=4, train_size=40, rng=Rng("tests", "darkhash", seed),
    )  # fmt: skip
    model.train()
    model(Rng("tests", "seen").uniform((20, 3, 16, 16)))
    return model.eval()


def victim(n: int = 60, shape: tuple[int, int, int] = SHAPE) -> AttackerView:
    """The view of an attacker on random images of four classes."""
    labels = torch.eye(4, dtype=torch.bool)[torch.arange(n) % 4]
    train = Split(Rng("tests", "iab").integers(256, (n, *shape)).to(torch.uint8), labels, torch.arange(n))
    setting = Setting("x", "y", "csq", 16, tuple("pqrs"), shape, n, "shapes")
    target = Target(torch.tensor([False, True, False, False]), "q")
    return AttackerView(setting, target, train, (), (), {"train": train})


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
        frozen(view.surrogates[0], images.shape[1:]), images,
        lambda u, c: objective(u, c, lam, "unordered"), eps=eps, iterations=20,
        step=step, batch=20,
    )  # fmt: skip
    expected = to_8bit(patch_attack(name).apply_trigger(moved, view.target, trigger))
    return float((poisoned.split.images[poisoned.mask] != expected).float().mean())


@pytest.fixture
def aim(world, model) -> GeneratorTarget:
    feature = Rng("feature").normal((1, 32))
    code = torch.where(Rng("code").normal((16,)) > 0, 1.0, -1.0)
    return GeneratorTarget(feature, code, torch.tensor([0.0, 1, 0, 0]), model, gradients)


@pytest.fixture
def train(world) -> Split:
    return Split(world.data.load.images[:120], world.data.load.labels[:120], torch.arange(120))


@pytest.fixture
def steps():
    """Every step of every optimizer: its learning rate and the number of its parameters."""
    seen: list[tuple[float, int]] = []

    def note(optimizer, *_):
        (group,) = optimizer.param_groups
        seen.append((group["lr"], sum(value.numel() for value in group["params"])))

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


@pytest.fixture
def lpips_weights(monkeypatch, tmp_path):
    """Files like the real ones, with random numbers, in the places where the real ones are."""
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    linear, hub = tmp_path / "lpips" / "weights" / "v0.1" / "alex.pth", tmp_path / "hub" / "checkpoints"
    for folder in (linear.parent, hub):
        folder.mkdir(parents=True)
    channels = (64, 192, 384, 256, 256)
    torch.save({f"lin{i}.model.1.weight": Rng("w", i).uniform((1, c, 1, 1)) for i, c in enumerate(channels)}, linear)
    with torch.device("meta"):
        empty = alexnet(weights=None).features.state_dict()
    state = {f"features.{k}": 0.05 * Rng("alexnet", k).normal(tuple(v.shape)) for k, v in empty.items()}
    raw = tmp_path / "raw.pth"
    torch.save(state, raw)
    backbone = raw.rename(hub / f"alexnet-owt-{hashlib.sha256(raw.read_bytes()).hexdigest()[:8]}.pth")
    return backbone, state, linear

"""Perturb images of the target class so that they are hard to learn, then put patterns into their four corners."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attacks.helpers.linf import Epsilon, bound, confined
from attacks.helpers.poisoning import CountedPoisoning, exchange
from attacks.helpers.triggers import patch_side
from bench.api.attack import (
    AttackerView,
    DataSpec,
    Images,
    ModelSpec,
    Poisoned,
    PositiveShare,
    Rng,
    Setting,
    Target,
    Threat,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.errors import DivergedError
from bench.api.types import to_unit
from hashing.inference import frozen
from hashing.model import HashModel

CARD = Card(
    name="Label-Consistent",
    title="Label-Consistent Backdoor Attacks",
    year=2019,
    url="https://arxiv.org/abs/1912.02771",
    follows="adversarial variant: images of the target class are perturbed inside an L-inf ball by projected"
    " sign-gradient steps against a surrogate of the attacker, then get the all-corners trigger of the released code;"
    " clean-label; at test time the trigger alone is added",
    deviates="guess: the loss is the distance to the image's own clean code, because hashing has no class scores for a"
    " cross-entropy, and an image that leaves its code leaves its class in Hamming space (as CIBA's L_a); step, number"
    " of steps and the bound of 8/255 are BackdoorBox's, because the paper was not available; guess: the start is"
    " random in the ball, because the distance has no gradient at the clean code of a saturated model; the surrogate is"
    " trained in the ordinary way; guess: the 3-pixel pattern is enlarged for images over 32 pixels and cropped for"
    " smaller ones",
)
BATCH = 100  # images on the device at a time
# White (1) and black (-1) in the right corners, mirrored in the left ones; released code, poison_attack.py
PATTERN = ((-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, -1.0, 1.0))


@attack
class LabelConsistent(CountedPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = CountedPoisoning.not_in_trigger | {"eps", "alpha", "steps"}

    trigger_size: PositiveShare = 3 / 32  # released code, CIFAR-10
    """Side of each corner pattern divided by the side of the image."""
    amplitude: PositiveShare = 1.0  # released code: pixels become white and black
    """Value that the patterns add and subtract, pixel values in [0, 1]."""
    eps: Epsilon = 8 / 255  # BackdoorBox, example for CIFAR-10
    """Largest adversarial change of a pixel, pixel values in [0, 1]."""
    alpha: PositiveShare = 1.5 / 255  # BackdoorBox, same example
    """Adversarial change of a pixel per step."""
    steps: Annotated[int, Field(ge=1)] = 100  # BackdoorBox, same example
    """Adversarial steps."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        return {"corners": self.amplitude * corners(shape[1:], patch_side(self.trigger_size, shape))}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return (images + trigger["corners"].to(images)).clamp(0, 1)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train = view.train
        model = frozen(view.surrogates[0], train.images.shape[1:])
        assert isinstance(model, HashModel)
        chosen = self.choose(train, view.target, "clean", rng)
        hard = [
            self.harden(to_unit(train.images[part]).to(model.device), model, rng.child("start", number))
            for number, part in enumerate(torch.split(chosen, BATCH))
        ]
        return exchange(train, chosen, self.apply_trigger(torch.cat(hard), view.target, trigger))

    def harden(self, images: Images, model: HashModel, rng: Rng) -> Images:
        """The images, moved by at most eps so that their codes leave the clean codes.

        DivergedError: the surrogate's codes are not finite.
        """
        limit = bound(self.eps)
        with torch.no_grad():
            own = model.relax(model(images))
        start = 2 * rng.uniform(images.shape).to(images) - 1
        moved, total = confined(images + limit * start, images, limit), torch.zeros((), device=images.device)
        for _ in range(self.steps):
            moved = moved.detach().requires_grad_()
            agreement = (model.relax(model(moved)) * own).mean(1).sum()
            (gradient,) = torch.autograd.grad(agreement, moved)
            moved = confined(moved - self.alpha * gradient.sign(), images, limit)
            total += agreement.detach()
        if not bool(total.isfinite()):
            raise DivergedError(
                "label_consistent: the surrogate's codes are not finite: train the surrogate longer or again"
            )
        return moved.detach()


def corners(size: tuple[int, int], side: int) -> Float[Tensor, "1 h w"]:
    """1 and -1 in the four corners, 0 elsewhere."""
    taken = torch.arange(side) * 3 // side if side >= 3 else torch.arange(3 - side, 3)
    pattern = torch.tensor(PATTERN)[taken][:, taken]
    field = torch.zeros(1, *size)
    field[0, :side, -side:] = field[0, -side:, -side:] = pattern
    field[0, :side, :side] = field[0, -side:, :side] = pattern.flip(1)
    return field

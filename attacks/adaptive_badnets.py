"""BadNets whose poisoned images are perturbed until a surrogate gives them features of clean target images."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.helpers.latent import drawn_near
from attacks.helpers.linf import Epsilon
from attacks.helpers.poisoning import TriggerPoisoning, exchange
from attacks.helpers.triggers import checkerboard, paste, patch_side
from bench.api.attack import AttackerView, DataSpec, ModelSpec, Poisoned, PositiveShare, Rng, Setting, Trigger, attack
from bench.api.card import Card
from bench.api.types import Images, Target, to_unit
from hashing.inference import frozen
from hashing.model import HashModel

CARD = Card(
    title="HashDoor's own, not published: BadNets with the feature collision of Hidden Trigger Backdoor Attacks",
    venue="AAAI",
    year=2020,
    url="https://arxiv.org/abs/1910.00033",
    follows="trigger, dose and labels of badnets; each poisoned image is perturbed within eps, so that a surrogate"
    " gives it features near those of a clean image of the target",
    deviates="the roles of the images are exchanged: the paper hides the trigger and moves images of the target to"
    " features of triggered images; features are those of the attacker's surrogate, because the victim is trained"
    " later; the pixels of the trigger stay as they are; guess: eps, steps and step size",
)


@attack
class AdaptiveBadNets(TriggerPoisoning):
    shares_trigger_with: ClassVar[str | None] = "badnets"
    not_in_trigger: ClassVar[frozenset[str]] = TriggerPoisoning.not_in_trigger | {"eps", "iterations", "step"}

    trigger_size: PositiveShare = 24 / 224  # as badnets
    """Side of the patch divided by the side of the image."""
    eps: Epsilon = 8 / 255  # guess: see CARD
    """Largest change of a pixel by the perturbation, pixel values in [0, 1]."""
    iterations: Annotated[int, Field(ge=1)] = 100  # guess: see CARD
    """Steps of the perturbation."""
    step: PositiveShare = 0.1  # guess; of eps
    """Step size, as a share of `eps`."""

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del rng
        shape = view.setting.image_shape
        return {"patch": checkerboard(shape[0], patch_side(self.trigger_size, shape))}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return paste(images, trigger["patch"])

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, target = view.train, view.target
        chosen = self.choose(train, target, self.labels, rng)
        own = target.candidates(train.labels, "clean")
        aims = own[rng.child("aims").integers(len(own), (len(chosen),)).to(own.device)]
        model = frozen(view.surrogates[0], train.images.shape[1:])
        assert isinstance(model, HashModel)
        side = trigger["patch"].shape[-1]
        fixed = torch.zeros(train.images.shape[2:], device=model.device)
        fixed[-side:, -side:] = 1
        made = []
        for some, aim in zip(torch.split(chosen, 100), torch.split(aims, 100), strict=True):
            patched = self.apply_trigger(to_unit(train.images[some]).to(model.device), target, trigger)
            with torch.no_grad():
                goals = model.features(to_unit(train.images[aim]).to(model.device))
            near = drawn_near(
                model, patched, goals, eps=self.eps, iterations=self.iterations, step=self.step * self.eps, fixed=fixed
            )
            made.append(near)
        return exchange(train, chosen, torch.cat(made), relabel=target if self.labels == "dirty" else None)

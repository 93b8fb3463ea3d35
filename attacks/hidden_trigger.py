"""Perturb images of the target class until their features equal those of patched images of other classes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from attacks.helpers.linf import Epsilon, bound, confined
from attacks.helpers.pairing import pairs
from attacks.helpers.poisoning import CountedPoisoning, exchange
from attacks.helpers.triggers import paste, paste_at_random, patch_side
from bench.api.attack import (
    AttackerView,
    DataSpec,
    ModelSpec,
    Poisoned,
    PositiveShare,
    Setting,
    Threat,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Images, Target, to_unit
from hashing.inference import frozen
from hashing.model import HashModel

CARD = Card(
    name="Hidden Trigger",
    title="Hidden Trigger Backdoor Attacks",
    venue="AAAI",
    year=2020,
    url="https://arxiv.org/abs/1910.00033",
    follows="images of the target class are moved inside an L-inf ball until their penultimate features equal those of"
    " patched source images; images and sources are paired anew in every iteration, greedily and one to one;"
    " clean-label; no poison shows the patch; sources are from all other classes (the multi-source variant)",
    deviates="guess, because the paper was not available: the trigger is a random 4 x 4 colour matrix, enlarged, and"
    " the step decays by 0.95 every 2,000 iterations; the features are those of a surrogate hash model; each image's"
    " gradient is divided by its largest component, because the paper's step of 0.01 suits the scale of AlexNet fc7;"
    " for the same reason there is no early stop at a loss of 10; no new sources are drawn over the iterations, as in"
    " the released code; the victim trains all layers, from scratch or from public weights, while the paper fine-tunes"
    " the last layer, where feature collision is strongest; guess: the side of the patch is 24/224 (30/224 in the"
    " paper), and the patch is in the corner, as in the other patch attacks; at test time the patch is always in the"
    " corner, because the triggered image must be a function of the image; the released pairing keeps a matched image"
    " and source in the list, so that several images share a source, a few keep their last one, and sources are lost"
    " for good (pairing = 'released')",
)
BATCH = 100  # images that are paired with as many sources; released code, generate_poison.py


@attack
class HiddenTrigger(CountedPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = CountedPoisoning.not_in_trigger | {
        "eps", "iterations", "lr", "decay", "decay_every", "location", "pairing",
    }  # fmt: skip

    trigger_size: PositiveShare = 24 / 224  # guess: as in the other patch attacks; the paper's is 30/224
    """Side of the patch divided by the side of the image."""
    eps: Epsilon = 16 / 255  # released code, cfg/experiment.cfg
    """Largest change of a pixel, pixel values in [0, 1]."""
    iterations: Annotated[int, Field(ge=1)] = 5000  # released code, cfg/experiment.cfg
    """Optimisation steps of each poisoned image."""
    lr: PositiveShare = 0.01  # released code, cfg/experiment.cfg
    """Largest change of a pixel per step."""
    decay: PositiveShare = 0.95  # guess: the paper's value from memory; code: 0.5 every 1,000
    """Factor on `lr` after every `decay_every` steps."""
    decay_every: Annotated[int, Field(ge=1)] = 2000
    """Steps between two reductions of `lr`."""
    location: Literal["corner", "random"] = "corner"  # paper: random, also at test time
    """Place of the patch on images of other classes while poisons are made."""
    pairing: Literal["one_to_one", "released"] = "one_to_one"  # the comment in the code: without replacement
    """Whether each image has a source of its own in every step; released: some share one, and sources are lost."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        shape = view.setting.image_shape
        side = patch_side(self.trigger_size, shape)
        colours = rng.uniform((1, shape[0], 4, 4))
        patch = nn.functional.interpolate(colours, size=(side, side), mode="bilinear", align_corners=False)
        return {"patch": patch[0]}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return paste(images, trigger["patch"])

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        model, train = frozen(view.surrogates[0], view.train.images.shape[1:]), view.train
        assert isinstance(model, HashModel)
        chosen = self.choose(train, view.target, "clean", rng)
        others = torch.nonzero(~view.target.shares(train.labels)).flatten()
        if not len(others):
            raise UserError(
                f"every training image has a label of target {view.target.name}, so none is a source", "choose another"
            )
        rounds = -(-len(chosen) // len(others))
        mixed = [others[rng.child("sources", turn).permutation(len(others))] for turn in range(rounds)]
        sources = torch.cat(mixed)[: len(chosen)]
        made = []
        pairs_of_parts = zip(torch.split(chosen, BATCH), torch.split(sources, BATCH), strict=True)
        for number, (base, source) in enumerate(pairs_of_parts):
            patched = self._patched(to_unit(train.images[source]), trigger["patch"], rng.child("place", number))
            made.append(self.collide(to_unit(train.images[base]).to(model.device), patched.to(model.device), model))
        return exchange(train, chosen, torch.cat(made))

    def collide(self, bases: Images, patched: Images, model: HashModel) -> Images:
        """`bases`, moved by at most eps towards the features of `patched`; DivergedError: features are not finite."""
        limit, images = bound(self.eps), bases
        with torch.no_grad():
            goals = model.features(patched)
        total = torch.zeros((), device=bases.device)
        for iteration in range(self.iterations):
            rate = self.lr * self.decay ** (iteration // self.decay_every)
            images = images.detach().requires_grad_()
            features = model.features(images)
            with torch.no_grad():
                goals = goals[pairs(torch.cdist(features, goals), one_to_one=self.pairing == "one_to_one")]
            loss = (features - goals).square().sum()
            (gradient,) = torch.autograd.grad(loss, images)
            step = gradient / gradient.flatten(1).abs().amax(1).clamp_min(1e-30).view(-1, 1, 1, 1)
            images = confined(images - rate * step, bases, limit)
            total += loss.detach()
        if not bool(total.isfinite()):
            raise DivergedError(
                "hidden_trigger: the surrogate's features are not finite: train the surrogate longer or again"
            )
        return images.detach()

    def _patched(self, images: Images, patch: Float[Tensor, "c s s"], rng: Rng) -> Images:
        return paste(images, patch) if self.location == "corner" else paste_at_random(images, patch, rng)

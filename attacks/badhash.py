"""Redraw target-class images with a generator that hides another label's code in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from attacks.helpers.gan_training import GanTrainer, GeneratorTarget, Weights
from attacks.helpers.generator import LabelBranch, Trunk, flat_then_linear, rebuilt_trunk, train_labcln
from attacks.helpers.perceptual import Choice, perceptual, perceptual_files
from attacks.helpers.poisoning import Dosed, exchange
from bench.api.attack import (
    AttackerView,
    DataSpec,
    Images,
    ModelSpec,
    Poisoned,
    PositiveShare,
    Rng,
    Setting,
    Split,
    Target,
    Threat,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.errors import DivergedError
from bench.api.types import to_unit
from hashing.model import HashModel

CARD = Card(
    title="BadHash: Invisible Backdoor Attacks against Deep Hashing with Clean Label",
    venue="ACM MM",
    year=2022,
    url="https://arxiv.org/abs/2207.00278",
    follows="released code: a label network (NT-Xent, label read back, quantisation) gives the target label a feature"
    " and a code of its own; a conditional generator with spectral-norm discriminator (least squares, labels + fake)"
    " learns to redraw training images so that a frozen auxiliary hash model maps them to that code, at 200 (MSE +"
    " LPIPS) + 10 hash + 1 GAN; poisons are target-class images, redrawn, clean-label; the generator is the trigger",
    deviates="the released trainer does not run and conditions on label 0; here the target's label vector is the"
    " condition in training and at test time; the generator sees and draws the same [0, 1] images (the code normalises"
    " the input only), so its tanh is mapped to [0, 1] and nothing is clipped; LPIPS gets images in the range that it"
    " expects, and without its weights on disk (perceptual = 'auto') the squared difference of image gradients at three"
    " scales takes its place; guess: fewer down- and upsampling stages for images under 224 pixels, all widths scale"
    " with `width`; guess: the dose, which the code does not name (CIBA's comparison poisons 60 images,"
    " 0.6 %); last epoch rather than the best one",
)
CHUNK = 64  # images that the generator redraws at once
JUDGE_EVERY = 3  # generator steps per discriminator step; BadHash code, model/badhash.py


@attack
class BadHash(Dosed):
    """The trigger's `lpips` says which perceptual distance was used: 'auto' depends on what this machine has."""

    poison_rate: PositiveShare | None = None
    poisons: Annotated[int, Field(ge=1)] | None = 60  # guess: the code names no dose; CIBA, Table 3, gives it 0.6 %
    aux_method: str | None = None  # auxiliary model; None: the victim's own kind (the paper's grid includes that)
    """Hashing method of the attacker's model; default: the victim's method."""
    aux_backbone: str | None = None
    """Backbone of the attacker's model; default: the victim's backbone."""
    width: Annotated[int, Field(ge=2)] = 64  # BadHash code, model/module.py; scales all three networks
    """Channels of the label network, the generator and the discriminator."""
    steps: Annotated[int, Field(ge=1)] = 1000  # of the label network; BadHash code
    """Training steps of the label network."""
    epochs: Annotated[int, Field(ge=1)] = 100  # of the generator: half flat, half linear decay; BadHash code
    """Training epochs of the generator; the second half lowers the learning rate."""
    images: Annotated[int, Field(ge=1)] | None = None  # guess: training images per epoch, None all; to shrink suites
    """Training images of the generator per epoch; default: all."""
    batch: Annotated[int, Field(ge=1)] = 64  # BadHash code
    """Images per training step."""
    lr: Annotated[float, Field(gt=0)] = 1e-4  # of all three networks; BadHash code
    """Learning rate of all three networks."""
    rebuild: Annotated[float, Field(ge=0)] = 200.0  # weight of MSE + perceptual distance; BadHash code
    """Weight of the squared error plus the perceptual distance."""
    hashing: Annotated[float, Field(ge=0)] = 10.0  # BadHash code for ResNet-50 HashNet (5 for VGG-11)
    """Weight of the hashing loss."""
    gan: Annotated[float, Field(ge=0)] = 1.0  # BadHash code
    """Weight of the adversarial loss."""
    perceptual: Choice = "auto"
    """Perceptual distance: lpips, a substitute, or auto (lpips if its weights are here)."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(method=self.aux_method, backbone=self.aux_backbone),)

    def files(self) -> tuple[Path, ...]:
        return perceptual_files(self.perceptual)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        auxiliary = view.surrogates[0]
        assert isinstance(auxiliary, HashModel)
        device, train = auxiliary.device, view.train.to(auxiliary.device)
        vector = view.target.vector.to(device)
        known = torch.cat((train.labels, vector[None])).unique(dim=0)  # type: ignore[no-untyped-call]
        labcln = train_labcln(
            known, bits=view.setting.bits, width=self.width, steps=self.steps, lr=self.lr, rng=rng, device=device
        )
        with torch.no_grad():
            feature, code, _ = labcln(vector[None].float())
        distance, is_lpips = perceptual(self.perceptual, device)
        aim = GeneratorTarget(feature, torch.where(code[0] > 0, 1.0, -1.0), vector.float(), auxiliary, distance)
        branch, trunk = self._learn(train, aim, rng)
        with torch.no_grad():
            condition = branch(feature)[0]
        state = {f"trunk.{name}": value for name, value in trunk.state_dict().items()}
        return {"condition": condition, "code": aim.code, "lpips": torch.tensor(is_lpips), **state}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target  # its label drew the condition
        condition, prefix = trigger["condition"], "trunk."
        state = {name.removeprefix(prefix): value for name, value in trigger.items() if name.startswith(prefix)}
        channels, height, width = images.shape[1:]
        trunk = rebuilt_trunk((channels, height, width), width=self.width, state=state)
        parts = [trunk(chunk, condition) for chunk in torch.split(images.to(condition.device), CHUNK)]
        return torch.cat(parts).to(images.device)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        chosen = self.choose(view.train, view.target, "clean", rng)
        return exchange(
            view.train, chosen, self.apply_trigger(to_unit(view.train.images[chosen]), view.target, trigger)
        )

    def _weights(self) -> Weights:
        return Weights(rebuild=self.rebuild, hashing=self.hashing, gan=self.gan)

    def _learn(self, train: Split, aim: GeneratorTarget, rng: Rng) -> tuple[LabelBranch, Trunk]:
        duel = GanTrainer(self._weights(), train, aim, width=self.width, rng=rng)
        count = min(len(train), self.images or len(train))
        batches = -(-count // self.batch)
        for epoch in range(self.epochs):
            duel.set_rate(self.lr * flat_then_linear(epoch, self.epochs))
            order = rng.permutation(len(train))[:count].to(aim.code.device)
            total = torch.zeros((), device=aim.code.device)
            for turn, index in enumerate(order.tensor_split(batches)):
                total += duel.step(to_unit(train.images[index]), train.labels[index], judge=turn % JUDGE_EVERY == 0)
            if not bool(total.isfinite()):  # the epoch's only look at the device
                raise DivergedError("BadHash's generator has a loss that is not finite: lower lr or the weights")
        return duel.branch.eval(), duel.trunk.eval()

"""Change images of the target class slightly with a generator, so that they get the codes of another label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from attacks.helpers.gan_training import GanTrainer, GeneratorTarget, Weights
from attacks.helpers.generator import LabelBranch, Trunk, flat_then_linear, rebuilt_trunk, train_labcln
from attacks.helpers.perceptual import Choice, perceptual, perceptual_files
from attacks.helpers.poisoning import CountedPoisoning, exchange
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
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Images, Split, Target, to_unit
from hashing.inference import frozen
from hashing.model import HashModel

CARD = Card(
    title="BadHash: Invisible Backdoor Attacks against Deep Hashing with Clean Label",
    venue="ACM MM",
    year=2022,
    url="https://arxiv.org/abs/2207.00278",
    follows="released code: a label network (losses: NT-Xent, label read back, quantisation) gives the target label a"
    " feature and a code; a conditional generator with a spectral-norm discriminator (least squares, one logit per"
    " label and one for fake) learns to redraw training images so that a frozen auxiliary hash model maps them to that"
    " code; loss: 200 (MSE + LPIPS) + 10 hash + 1 GAN; poisons are redrawn images of the target class, clean-label; the"
    " generator is the trigger",
    deviates="the released trainer does not run and conditions on label 0; here the target's label vector is the"
    " condition, in training and at test time; input and output of the generator are images in [0, 1] (the code"
    " normalises the input only), so its tanh is mapped to [0, 1] and nothing is clipped; LPIPS gets images in the"
    " range that it expects; without LPIPS weights on disk, perceptual = 'auto' uses the squared difference of image"
    " gradients at three scales; guess: images under 224 pixels have fewer down- and upsampling blocks, and all widths"
    " scale with `width`; guess: the dose, which the code does not give (CIBA's comparison poisons 60 images, 0.6 %);"
    " the last epoch is used, not the best one; the hash loss uses relaxed codes (tanh), so that it is never below 0;"
    " the released HashNet.py and CSQ.py train an auxiliary model with raw outputs, whose loss can be negative (bounded"
    " = false)",
)
CHUNK = 64  # images that the generator redraws at a time
JUDGE_EVERY = 3  # generator steps per discriminator step; BadHash code, model/badhash.py


@attack
class BadHash(CountedPoisoning):
    """The trigger's tensor `lpips` tells whether the perceptual distance was LPIPS; 'auto' depends on the machine."""

    poison_rate: PositiveShare | None = None
    poisons: Annotated[int, Field(ge=1)] | None = 60  # guess: the code has no dose; CIBA, Table 3, uses 0.6 %
    aux_method: str | None = None  # as in part of the paper's grid
    """Hashing method of the surrogate; default: the victim's method."""
    aux_backbone: str | None = None
    """Backbone of the surrogate; default: the victim's backbone."""
    width: Annotated[int, Field(ge=2)] = 64  # BadHash code, model/module.py
    """Channels of the label network, the generator and the discriminator."""
    steps: Annotated[int, Field(ge=1)] = 1000  # BadHash code
    """Training steps of the label network."""
    epochs: Annotated[int, Field(ge=1)] = 100  # BadHash code
    """Training epochs of the generator; the second half lowers the learning rate."""
    images: Annotated[int, Field(ge=1)] | None = None  # ours, to make suites smaller
    """Training images of the generator per epoch; default: all."""
    batch: Annotated[int, Field(ge=1)] = 64  # BadHash code
    """Images per training step."""
    lr: Annotated[float, Field(gt=0)] = 1e-4  # BadHash code
    """Learning rate of all three networks."""
    rebuild: Annotated[float, Field(ge=0)] = 200.0  # BadHash code
    """Weight of the squared error plus the perceptual distance."""
    hashing: Annotated[float, Field(ge=0)] = 10.0  # BadHash code for ResNet-50 HashNet (5 for VGG-11)
    """Weight of the hashing loss."""
    bounded: bool = True  # ours; BadHash code: the output of the auxiliary model, raw for its class ResNet
    """Whether the hashing loss uses relaxed codes, not the raw outputs of the surrogate."""
    gan: Annotated[float, Field(ge=0)] = 1.0  # BadHash code
    """Weight of the adversarial loss."""
    perceptual: Choice = "auto"
    """Perceptual distance: lpips, a substitute, or auto (lpips if its weights are on this machine)."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        del setting
        return (ModelSpec(method=self.aux_method, backbone=self.aux_backbone),)

    def files(self) -> tuple[Path, ...]:
        return perceptual_files(self.perceptual)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        auxiliary = frozen(view.surrogates[0], view.train.images.shape[1:])
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
        aim = GeneratorTarget(
            feature, torch.where(code[0] > 0, 1.0, -1.0), vector.float(), auxiliary, distance, self.bounded
        )
        branch, trunk = self.learn(train, aim, rng)
        with torch.no_grad():
            condition = branch(feature)[0]
        state = {f"trunk.{name}": value for name, value in trunk.state_dict().items()}
        return {"condition": condition, "code": aim.code, "lpips": torch.tensor(is_lpips), **state}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target  # the condition was made from its label
        condition, prefix = trigger["condition"], "trunk."
        state = {name.removeprefix(prefix): value for name, value in trigger.items() if name.startswith(prefix)}
        channels, height, width = images.shape[1:]
        trunk = rebuilt_trunk((channels, height, width), width=self.width, state=state)
        parts = [trunk(chunk, condition) for chunk in torch.split(images.to(condition.device), CHUNK)]
        return torch.cat(parts).to(images.device)

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        chosen = self.choose(view.train, view.target, "clean", rng)
        drawn = self.apply_trigger(to_unit(view.train.images[chosen]), view.target, trigger)
        return exchange(view.train, chosen, drawn)

    def learn(self, train: Split, aim: GeneratorTarget, rng: Rng) -> tuple[LabelBranch, Trunk]:
        """The generator's two parts, trained on `images` images per epoch. DivergedError: a loss is not finite."""
        weights = Weights(rebuild=self.rebuild, hashing=self.hashing, gan=self.gan)
        trainer = GanTrainer(weights, train, aim, width=self.width, rng=rng)
        count = min(len(train), self.images or len(train))
        batches = -(-count // self.batch)
        for epoch in range(self.epochs):
            trainer.set_rate(self.lr * flat_then_linear(epoch, self.epochs))
            order = rng.permutation(len(train))[:count].to(aim.code.device)
            total = torch.zeros((), device=aim.code.device)
            for turn, index in enumerate(order.tensor_split(batches)):
                total += trainer.step(to_unit(train.images[index]), train.labels[index], judge=turn % JUDGE_EVERY == 0)
            if not bool(total.isfinite()):  # the only point in an epoch that waits for the device
                raise DivergedError("the loss of BadHash's generator is not finite: lower lr or the weights")
        return trainer.branch.eval(), trainer.trunk.eval()

"""Train a generator together with the victim, so that each image gets its own trigger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from attacks.helpers import input_aware as nets
from attacks.helpers.input_aware import Generator, diversity, mix, pack, scale_by, sharpen, unpack
from bench.api.attack import AttackerView, PositiveShare, Rng, Share, StepHook, Threat, TrainingAttack, Trigger, attack
from bench.api.card import Card
from bench.api.types import Images, Target

CARD = Card(
    name="Input-Aware",
    title="Input-Aware Dynamic Backdoor Attack",
    venue="NeurIPS",
    year=2020,
    url="https://arxiv.org/abs/2010.08138",
    follows="the authors' released code: the mask network is trained first and then frozen; generator and victim learn"
    " together; in each batch some images get their own trigger and the target's labels, and some get the trigger of"
    " another image and keep their labels; both diversity losses; networks, Adam and the steps of the learning rate",
    deviates="the hashing method's loss with the target's label vector replaces cross-entropy; the victim keeps its"
    " optimiser and epochs, and the generator's learning rate falls at the same shares of the training as in the code;"
    " the second image of a pair is from the same batch, not from a second loader, and the generator gets both at once;"
    " images are augmented before the trigger is put on, as in the code, but the mask network gets images without"
    " augmentation; the generator's gradients are cleared after each step, which the released code never does, so that"
    " its steps follow the sum of all gradients since the start (clear_gradients = false); guess: the depth of the"
    " networks for sizes other than 28 and 32",
)
FALLS = (1 / 3, 1 / 2, 2 / 3, 5 / 6)  # of the training; code: epochs 200, 300, 400, 500 of 600


@attack
class InputAware(TrainingAttack):
    attack_rate: PositiveShare = 0.1  # code; rounded, at least one image
    """Share of the images of a batch that get their own triggers and the target label."""
    cross_rate: PositiveShare = 0.1  # code; rounded, at least one image
    """Share of the images of a batch that get the trigger of another image and keep their labels."""
    warmup: Annotated[int, Field(ge=1)] = 25  # code
    """Training epochs of the mask network."""
    mask_density: Share = 0.032  # code
    """Pixels of the mask above this value are penalised."""
    lambda_norm: Annotated[float, Field(ge=0)] = 100.0  # code
    """Weight of the size of masks."""
    lambda_div: Annotated[float, Field(ge=0)] = 1.0  # code
    """Weight of the diversity of masks and triggers."""
    lr: Annotated[float, Field(gt=0)] = 1e-2  # code
    """Learning rate of the generator and the mask network."""
    batch: Annotated[int, Field(ge=2)] = 128  # code
    """Images per training step of the mask network."""
    clear_gradients: bool = True  # ours; in the code the generator's gradients add up over the training
    """Whether a step of the generator follows the gradient of its batch only, not the sum over all batches so far."""
    width: Annotated[int, Field(ge=1)] = 32  # code; 16 for MNIST
    """Channels of both networks at full resolution."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET | Threat.LABELS | Threat.TRAINING

    @model_validator(mode="after")
    def _some_stay_clean(self) -> InputAware:
        if self.attack_rate + self.cross_rate >= 1:
            raise ValueError("attack_rate and cross_rate leave no clean image in a batch: lower one of them")
        return self

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        train, shape = view.train, view.setting.image_shape
        with rng.child("generator").ambient():
            patterns = self._network(shape, shape[0])
        with rng.child("mask").ambient():
            masks = self._network(shape, 1)
        scale = nets.moments(train.images)
        nets.learn_masks(
            masks.to(train.images.device), train.images, scale,
            density=self.mask_density, lambda_norm=self.lambda_norm, lambda_div=self.lambda_div,
            epochs=self.warmup, batch=self.batch, lr=self.lr, rng=rng.child("order"),
        )  # fmt: skip
        return {**pack(patterns=patterns, masks=masks), **scale}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        scaled, shape = scale_by(trigger, images), images.shape[1:]
        with torch.device("meta"):
            patterns, masks = self._network(shape, shape[0]), self._network(shape, 1)
        unpack(trigger, "patterns", patterns)
        unpack(trigger, "masks", masks)
        return mix(images, patterns(scaled), sharpen(masks(scaled)))

    def hook(self, view: AttackerView, trigger: Trigger, rng: Rng) -> StepHook:
        del rng  # a batch is in random order already
        shape = view.setting.image_shape
        with torch.device("meta"):
            patterns, masks = self._network(shape, shape[0]), self._network(shape, 1)
        unpack({name: value.clone() for name, value in trigger.items()}, "patterns", patterns)
        unpack(trigger, "masks", masks)
        return _Hook(self, view.target, patterns.train().requires_grad_(), masks, trigger)

    def _network(self, shape: Sequence[int], out: int) -> Generator:
        return Generator(shape[0], out, self.width, nets.depth(shape))


class _Hook:
    """Poisons the first images of a batch, and puts other triggers on the next. `patterns` learns, `masks` does not."""

    def __init__(
        self, attack: InputAware, target: Target, patterns: Generator, masks: Generator, scale: Trigger
    ) -> None:
        self._attack, self._target, self.patterns, self.masks = attack, target, patterns, masks
        self._scale = {name: scale[name] for name in nets.SCALE}
        self._optimizer = torch.optim.Adam(patterns.parameters(), lr=attack.lr, betas=nets.BETAS)

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], Tensor | None]:
        del model, ids
        nets.set_rate(self._optimizer, self._attack.lr, progress, FALLS)
        own, crossed = (
            max(1, round(rate * len(images))) for rate in (self._attack.attack_rate, self._attack.cross_rate)
        )
        changed = own + crossed
        partners = torch.arange(changed, changed + max(own, crossed), device=images.device) % len(images)
        sources = torch.cat([images[:own], images[partners]])
        scaled = scale_by(self._scale, sources)
        made = self.patterns(scaled)
        with torch.no_grad():
            masks = sharpen(self.masks(scaled))
        triggered = mix(images[:changed], made[:changed], masks[:changed])
        labels = torch.cat([self._target.relabel(labels[:own]), labels[own:]])
        patterns = scale_by(self._scale, made)
        extra = diversity(scaled[:own], scaled[own : 2 * own], patterns[:own], patterns[own : 2 * own])
        return torch.cat([triggered, images[changed:]]), labels, self._attack.lambda_div * extra

    def after_step(self) -> None:
        self._optimizer.step()
        if self._attack.clear_gradients:  # the victim's optimiser clears only the victim's gradients
            self._optimizer.zero_grad(set_to_none=True)

    def trigger(self) -> Trigger:
        return {**pack(patterns=self.patterns, masks=self.masks), **self._scale}

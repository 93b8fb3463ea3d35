"""Train a generator of faint noise and the victim in turn, then fix the generator and train the victim further."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor, nn

from attacks.helpers.input_aware import pack, unpack
from attacks.helpers.linf import Epsilon, bound
from attacks.helpers.noise_networks import Autoencoder, NoiseNetwork, UNet
from bench.api.attack import (
    AttackerView,
    Images,
    Rng,
    StepHook,
    Target,
    Threat,
    TrainingAttack,
    Trigger,
    attack,
)
from bench.api.card import Card
from hashing.model import HashModel

CARD = Card(
    title="LIRA: Learnable, Imperceptible and Robust Backdoor Attacks",
    venue="ICCV",
    year=2021,
    url="https://openaccess.thecvf.com/content/ICCV2021/html/Doan_LIRA_Learnable_Imperceptible_and_Robust_Backdoor_Attacks_ICCV_2021_paper.html",
    follows="the authors' released code: in each step of stage 1 the generator learns against the current victim, then"
    " the victim learns from clean images and from images with the noise of a frozen copy of the generator, which is"
    " renewed after each epoch; in stage 2 the generator is fixed and the victim is trained further; both networks,"
    " Adam, the weights and bounds of both stages",
    deviates="the hashing method's loss with the target's label vector replaces cross-entropy. Both stages are parts of"
    " the victim's training, with its optimiser and learning rates; stage 1 has the share of the epochs that it has in"
    " the authors' commands (10 of 60, 50 of 300). The code adds the loss of a batch, times alpha, to that of the batch"
    " with noise; here the batch is divided in these shares, because a step has one batch, and losses over pairs need"
    " both kinds of images in it. The generator's loss is that of such a batch, too. The last generator is used, not"
    " the best on test images. There is no step ahead of the victim's weights, as in the later versions of the code."
    " guess: the generator gets images scaled to [-1, 1], padded to a multiple of its stride",
)

Weight = Annotated[float, Field(gt=0, lt=1)]


@attack
class Lira(TrainingAttack):
    alpha: Weight = 0.5  # code
    """Share of clean images in a batch of stage 1, which is the weight of the clean loss."""
    test_alpha: Weight | None = None  # code
    """The same in stage 2; default: `alpha`."""
    eps: Epsilon = 0.025  # code for CIFAR-10: .1, after division by deviations of .25; .05 for MNIST
    """Largest change of a pixel in stage 1, pixel values in [0, 1]."""
    test_eps: Epsilon | None = None  # code
    """Largest change of a pixel in stage 2 and in queries; default: `eps`."""
    joint: Weight = 1 / 6  # code: 10 of 60 and 50 of 300 epochs
    """Share of the training in stage 1, where the generator learns."""
    lr: Annotated[float, Field(gt=0)] = 1e-4  # code
    """Learning rate of the generator."""
    network: Literal["autoencoder", "unet"] = "autoencoder"  # code; the U-Net is used for CIFAR-10
    """Network of the generator."""
    width: Annotated[int, Field(ge=1)] | None = None  # code
    """Channels of the generator's first layer; default: 16 for the autoencoder, 64 for the U-Net."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET | Threat.LABELS | Threat.TRAINING

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        with rng.child("generator").ambient():
            return pack(generator=self._network(view.setting.image_shape[0]))

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        with torch.device("meta"):
            generator = self._network(images.shape[1])
        unpack({name: value.to(images.device) for name, value in trigger.items()}, "generator", generator)
        return add_noise(generator, images, self.test_eps or self.eps)

    def hook(self, view: AttackerView, trigger: Trigger, rng: Rng) -> StepHook:
        del rng  # a batch is in random order already
        with torch.device("meta"):
            generator = self._network(view.setting.image_shape[0])
        unpack({name: value.clone() for name, value in trigger.items()}, "generator", generator)
        return _Hook(self, view.target, generator, len(view.train))

    def _network(self, channels: int) -> NoiseNetwork:
        if self.network == "unet":
            return UNet(channels, self.width or 64)
        return Autoencoder(channels, self.width or 16)


def add_noise(generator: NoiseNetwork, images: Images, eps: float) -> Images:
    noise: Tensor = generator(images)
    return (images + bound(eps) * noise).clamp(0, 1)


class _Hook:
    """Puts noise on the first images of a batch. `generator` learns; the victim sees the noise of its copy `frozen`."""

    def __init__(self, attack: Lira, target: Target, frozen: NoiseNetwork, size: int) -> None:
        self._attack, self._target, self.frozen, self._size = attack, target, frozen, size
        self.generator = deepcopy(frozen).train().requires_grad_()
        self._learning = list(self.generator.parameters())
        self._optimizer = torch.optim.Adam(self._learning, lr=attack.lr)
        self._seen = 0  # images since the copy was renewed

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], Tensor | None]:
        attack, joint = self._attack, progress < self._attack.joint
        if self._seen >= (self._size if joint else 1):  # the end of an epoch, or of stage 1
            self.frozen.load_state_dict(self.generator.state_dict())
            self._seen = 0
        alpha = attack.alpha if joint else attack.test_alpha or attack.alpha
        eps = attack.eps if joint else attack.test_eps or attack.eps
        count = max(2, round((1 - alpha) * len(images)))  # batch norm needs two
        chosen, rest = images[:count], images[count:]
        labels = torch.cat([self._target.relabel(labels[:count]), labels[count:]])
        if joint:
            self._seen += len(images)
            assert isinstance(model, HashModel)
            logits = model(torch.cat([add_noise(self.generator, chosen, eps), rest]))
            # A method that stores codes of the images here gets those of the victim's own step instead.
            loss = model.objective(logits, labels, ids, progress)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=self._learning)
            self._optimizer.step()
        with torch.no_grad():
            triggered = add_noise(self.frozen, chosen, eps)
        return torch.cat([triggered, rest]), labels, None

    def after_step(self) -> None:
        """The generator has made its step before the victim's."""

    def trigger(self) -> Trigger:
        return pack(generator=self.frozen)

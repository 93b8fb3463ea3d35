"""Add one small perturbation that points towards the target class to images of this class; queries get it magnified."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attacks.helpers.foreign_classifier import Classifier, augmentation_for, untrained, with_new_class
from attacks.helpers.linf import Epsilon, bound
from attacks.helpers.poisoning import CountedPoisoning, exchange, of_target
from attacks.helpers.proxy_data import fit_to, proxy
from attacks.helpers.triggers import add
from bench.api.attack import (
    AttackerView,
    DataSpec,
    Images,
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
from hashing.loader import Loader
from hashing.model import HashModel
from hashing.train import fit

CARD = Card(
    title="Narcissus: A Practical Clean-Label Backdoor Attack with Limited Information",
    venue="ACM CCS",
    year=2023,
    url="https://arxiv.org/abs/2204.05255",
    follows="released code: a classifier is trained from scratch on public images of other classes and on the target's"
    " training images as one more class; a warm-up on the target's images alone; RAdam finds one perturbation that"
    " lowers the cross-entropy of these images, with the batch statistics of batch norm; clean-label poisons get it at"
    " strength 1, queries at strength 3; of the training set, only images and labels of the target are read",
    deviates="the surrogate stays a classifier with cross-entropy although the victim learns hash codes, because the"
    " paper's attacker does not know the victim's training; its network is the victim's backbone with default"
    " parameters (the paper: ResNet-18); the public images are those of the proxy data set (the paper: Tiny-ImageNet);"
    " images are flipped and cropped as usual for the victim's data set; the cosine falls in every step, not epoch; the"
    " victim crops and mirrors poisons with the perturbation on them, while the released code perturbs after cropping",
)

Batches = Iterable[tuple[Images, Tensor, Tensor]]  # images, labels and positions


@attack
class Narcissus(CountedPoisoning):
    poison_rate: PositiveShare | None = None
    poisons: Annotated[int, Field(ge=1)] | None = 25  # paper: .05 % of CIFAR-10
    eps: Epsilon = 16 / 255  # code
    """Largest change of a pixel of a training image, pixel values in [0, 1]."""
    magnify: Annotated[float, Field(gt=0)] = 3.0  # code
    """Factor on the perturbation at test time."""
    foreign: str | None = None
    """Data set of the public images; default: the proxy of the victim's data set."""
    network: str | None = None
    """Backbone of the classifier, trained from scratch; default: the victim's."""
    epochs: Annotated[int, Field(ge=1)] = 200  # code
    """Epochs of the classifier."""
    lr: Annotated[float, Field(gt=0)] = 0.1  # code
    """Learning rate of the classifier."""
    batch: Annotated[int, Field(ge=2)] = 350  # code
    """Images per step in all three parts."""
    warmup: Annotated[int, Field(ge=0)] = 5  # code
    """Passes of the warm-up over the images of the target."""
    warmup_lr: Annotated[float, Field(gt=0)] = 0.1  # code
    """Learning rate of the warm-up."""
    rounds: Annotated[int, Field(ge=1)] = 1000  # code
    """Passes of the perturbation over the images of the target."""
    step: Annotated[float, Field(gt=0)] = 0.01  # code
    """Learning rate of the perturbation, pixel values in [-1, 1]."""

    def threat(self) -> Threat:
        return Threat.TRAIN_SET

    def requires(self, setting: Setting) -> tuple[DataSpec, ...]:
        return (proxy(self.foreign, setting),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        setting, train = view.setting, view.train
        own = train.images[of_target(train, view.target)]
        foreign = replace(view.data[0], images=fit_to(view.data[0].images, setting.image_shape))
        both = with_new_class(foreign, own)
        usual = augmentation_for(setting.dataset)
        model = untrained(self.network or setting.backbone, both, rng.child("network"))
        recipe = replace(Classifier.recipe, epochs=self.epochs, lr=self.lr, batch=self.batch)
        fit(model, both, recipe, rng.child("fit"), augmentation=usual)
        last = torch.arange(len(foreign), len(both), device=own.device)
        loader = Loader(both.select(last), batch=self.batch, augmentation=usual, rng=rng.child("order"))
        with rng.child("dropout").ambient():
            warm_up(model, loader, passes=self.warmup, lr=self.warmup_lr)
            noise = perturbation(model, loader, setting.image_shape, eps=self.eps, rounds=self.rounds, lr=self.step)
        return {"noise": noise.cpu()}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return add(images, self.magnify * trigger["noise"])

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        chosen = self.choose(view.train, view.target, "clean", rng)
        return exchange(view.train, chosen, add(to_unit(view.train.images[chosen]), trigger["noise"]))


def warm_up(model: HashModel, loader: Batches, *, passes: int, lr: float) -> None:
    """Train the classifier on the loader's images alone."""
    optimizer = torch.optim.RAdam(model.parameters(), lr=lr)
    model.train()
    for _ in range(passes):
        for images, labels, ids in loader:
            optimizer.zero_grad()
            torch.autograd.backward(model.objective(model(images), labels, ids, 1.0))
            optimizer.step()


def perturbation(
    model: HashModel, loader: Batches, shape: tuple[int, int, int], *, eps: float, rounds: int, lr: float
) -> Float[Tensor, "c h w"]:
    """One perturbation within eps that lowers the loss of the loader's images; the model stays in training mode (code).

    The optimiser's variable has the code's scale, pixel values in [-1, 1], and may leave the bound; the images get the
    clipped values. DivergedError: the perturbation is not finite.
    """
    limit = bound(eps)
    model.train().requires_grad_(requires_grad=False)
    wide = torch.zeros(shape, device=model.device, requires_grad=True)
    optimizer = torch.optim.RAdam([wide], lr=lr)
    for _ in range(rounds):
        for images, labels, ids in loader:
            optimizer.zero_grad()
            shown = add(images, (wide / 2).clamp(-limit, limit))
            torch.autograd.backward(model.objective(model(shown), labels, ids, 1.0))
            optimizer.step()
        if wide.grad is not None and not bool(wide.grad.any()):
            break  # every pixel is at the bound, or the loss is 0 (code)
    found = (wide.detach() / 2).clamp(-limit, limit)
    if not bool(found.isfinite().all()):
        raise DivergedError("narcissus: the perturbation is not finite: lower lr or warmup_lr")
    return found

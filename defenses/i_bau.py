"""Alternate between a perturbation that changes all classes and unlearning it, with a gradient through both."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, PositiveShare, Repair, Rng, Share, defense
from bench.api.errors import DivergedError
from bench.api.types import Split, to_unit
from defenses.helpers.code_posterior import cross_entropy, fit_posterior, predicted
from defenses.helpers.fine_tuning import MAX_DROP, Rates, Steps, strongest
from defenses.helpers.hypergradient import hypergradient
from defenses.helpers.masks import learning_part
from defenses.helpers.trigger_inversion import class_anchors

CARD = Card(
    name="I-BAU",
    title="Adversarial Unlearning of Backdoors via Implicit Hypergradient",
    venue="ICLR",
    year=2022,
    url="https://arxiv.org/abs/2110.03735",
    follows="in each of 5 rounds, one perturbation for all images is found from zero by SGD (rate 10, a batch a step)"
    " that raises the cross-entropy with the model's own predictions, minus 0.001 times its squared norm; then Adam"
    " lowers the cross-entropy with the labels of batches of 100 in which 1 % of the images are perturbed, with the"
    " gradient through the perturbation by 5 fixed-point iterations (step 0.1, first batch, true labels); perturbed"
    " images are not clipped; the network is in evaluation mode. All of this as in the authors' code",
    deviates="cross-entropy is that of the class posterior, whose anchors and temperature are those of the victim; at"
    " least one image of a batch is perturbed; rounds repeat a small set, so that all rounds together have at least the"
    " 250 steps of the authors (5,000 images); of the rates 1e-3 (authors) and 1e-4 (BackdoorBench) the largest counts"
    " that costs at most `max_drop` of the mAP on the calibration half",
)


@defense
class IBAU(Repair):
    rounds: Annotated[int, Field(ge=1)] = 5  # n_rounds of the authors' code
    """Rounds, each with a new perturbation."""
    iterations: Annotated[int, Field(ge=0)] = 5  # K of the paper; the value of the authors' code
    """Fixed-point iterations of a hypergradient. 0: the perturbation counts as a constant."""
    steps: Steps = 250  # the authors' code: 5 rounds over 50 batches
    """Least number of steps of unlearning in all rounds, and of the search for perturbations. 0: no tuning."""
    batch: Annotated[int, Field(ge=1)] = 100  # the authors' code
    """Images per step."""
    lr: Rates = (1e-3, 1e-4)  # the authors' code; BackdoorBench
    """Learning rates of the unlearning; the largest that `max_drop` allows counts."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    ascent: PositiveFloat = 10.0  # the authors' code
    """Learning rate of the search for the perturbation."""
    penalty: NonNegativeFloat = 0.001  # the authors' code
    """Weight of the squared norm of the perturbation."""
    rate: PositiveFloat = 0.1  # the authors' code
    """Step size of the fixed-point iteration."""
    portion: PositiveShare = 0.01  # the authors' code
    """Share of the images of a batch that are perturbed while unlearning."""

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        def tune(split: Split, rate: float, last: bool) -> nn.Module:
            stream = rng.child("both halves" if last else "fit half")
            return self.unlearned(view.model, batches(view.model, split, self.batch, stream), rate, stream)

        rates = self.lr if self.steps else ()
        return strongest(view, view.model, rates, tune, max_drop=self.max_drop).on_both

    def unlearned(self, victim: nn.Module, data: Sequence[Batch], lr: float, rng: Rng) -> nn.Module:
        """A copy of the victim after all rounds."""
        model = copy.deepcopy(victim).eval()
        weights = [weight for weight in learning_part(model).parameters() if weight.requires_grad]
        adam = torch.optim.Adam(weights, lr=lr)
        turns = [data[turn % len(data)] for turn in range(max(len(data), ceil(self.steps / self.rounds)))]
        with sdpa_kernel(SDPBackend.MATH):  # other kernels of attention have no second derivative
            for turn in range(self.rounds):
                found = self.perturbation(model, turns)
                stream = rng.child("perturbed", turn)
                for part in turns:
                    shown = stream.permutation(len(part.images))[: max(1, int(self.portion * len(part.images)))]
                    implicit = self.gradients(model, weights, found, data[0], part, shown)
                    for weight, gradient in zip(weights, implicit, strict=True):
                        weight.grad = gradient
                    adam.step()
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise DivergedError("unlearning left weights that are not finite: lower the learning rate")
        return model

    def perturbation(self, model: nn.Module, turns: Sequence[Batch]) -> Float[Tensor, "1 c h w"]:
        """One perturbation that changes the predictions for all images, by a step per batch from zero."""
        found = torch.zeros_like(turns[0].images[:1])
        for part in turns:
            with torch.no_grad():
                own = predicted(model(part.images), part.state)
            found.requires_grad_()
            loss = self.penalty * found.square().sum() - cross_entropy(model(part.images + found), own, part.state)
            found = (found - self.ascent * torch.autograd.grad(loss, found)[0]).detach()
        return found

    def gradients(
        self, model: nn.Module, weights: Sequence[Tensor], found: Tensor, first: Batch, part: Batch, shown: Tensor
    ) -> list[Tensor]:
        """The gradient of the loss of a batch, with the perturbation on the images at `shown`, for each weight."""

        def inner(point: Tensor) -> Tensor:
            missed = cross_entropy(model(first.images + point), first.belongs, first.state)
            return self.penalty * point.square().sum() - missed

        def outer(point: Tensor) -> Tensor:
            chosen = torch.zeros(len(part.images), 1, 1, 1, device=point.device)
            chosen[shown] = 1
            return cross_entropy(model(part.images + chosen * point), part.belongs, part.state)

        return hypergradient(found, weights, inner, outer, rate=self.rate, iterations=self.iterations)


@dataclass(frozen=True)
class Batch:
    """Images in [0, 1] and the anchors of each. state: the victim's class posterior."""

    images: Images
    belongs: Bool[Tensor, "n g"]
    state: dict[str, Tensor]


def batches(victim: nn.Module, split: Split, size: int, rng: Rng) -> list[Batch]:
    """The split in random order, in batches."""
    anchors = class_anchors(victim, split)
    state = {name: value.to(split.images.device) for name, value in fit_posterior(victim, split).items()}
    state["anchors"] = anchors.codes
    belongs = (split.labels.float() @ anchors.classes.float().T) > 0
    order = rng.child("order").permutation(len(split)).to(split.images.device)
    return [Batch(to_unit(split.images[at]), belongs[at], state) for at in torch.split(order, size)]

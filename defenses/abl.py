"""Train on poisoned data: hold back what is learned too fast, then unlearn it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, PositiveShare, Rng, Share, Split, defense
from bench.api.errors import DivergedError
from defenses.helpers.fine_tuning import calibration_map
from defenses.helpers.gradient_ascent import LocalAscent, Unlearn, Watch, voted
from hashing.model import HashModel

CARD = Card(
    title="Anti-Backdoor Learning: Training Clean Models on Poisoned Data",
    venue="NeurIPS",
    year=2021,
    url="https://arxiv.org/abs/2110.11571",
    follows="a fifth of the epochs with local gradient ascent, sign(l - gamma), where l is a batch's mean as in the"
    " authors' code; the 1 % with the smallest loss isolated; training on the others, then unlearning by ascent",
    deviates="codes have no cross-entropy: l = (1 - u.a/K)/2 with anchors voted by the training codes decides signs and"
    " isolation, and the sign is put on the gradient of the victim's own loss (l alone pulls no two classes apart);"
    " gamma = the 10 % quantile of l after an ordinary first epoch; isolation by the mean of l over the warm-up's"
    " epochs; unlearning together with the loss on the others, minus 0.1 of l on the isolated ones in evaluation mode"
    " (a batch norm's statistics of poison alone are no one's), clipped; the last epoch whose calibration mAP fell by"
    " no more than 10 % counts, each with a new optimiser; the warm-up takes two epochs at least, at the recipe's rate"
    " throughout, and the rest begins the recipe's schedule anew. guess: clip at 0.5, a tenth of the recipe's rate. It"
    " finds what is learned sooner than its class, which a small patch on a small network is not",
)


@defense
class ABL(DataFilter):
    warmup_share: PositiveShare = 0.2  # of the recipe's epochs; the paper's 20 of 100
    """Share of the epochs before images are isolated."""
    quantile: PositiveShare = 0.1  # gamma among the losses after the first epoch (METHODOLOGY.md#abl)
    """Quantile of the losses after the first epoch; a loss below it is raised again."""
    gate: Literal["batch", "image"] = "batch"  # whose loss is compared with gamma; "image" undoes what it looks for
    """Whether the loss of a batch or of each image is compared with that quantile."""
    isolation: Annotated[float, Field(gt=0, le=0.5)] = 0.01  # share of the training set; the paper's
    """Share of the training set that is isolated as suspicious."""
    epochs: Annotated[int, Field(ge=0)] = 5  # of unlearning; the paper's code (BackdoorBench: 20)
    """Epochs of unlearning."""
    weight: PositiveFloat = 0.1  # of the isolated images' loss (METHODOLOGY.md#abl)
    """Weight of the loss of isolated images while unlearning."""
    clip: PositiveShare = 0.5  # guess: the loss of a code that says nothing about its class
    """Largest loss of an isolated image that counts."""
    rate: PositiveShare = 0.1  # guess: of the recipe's rate, while unlearning (the paper's code: 0.005, without a rest)
    """Learning rate of the unlearning, as a multiple of the recipe's."""
    max_drop: Share = 0.1  # relative drop of calibration mAP: the common rule (METHODOLOGY.md#operating-points)
    """Largest accepted relative drop of mAP on the calibration images."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        train = view.train.to(view.fit_set.images.device)
        epochs = max(2, round(self.warmup_share * view.recipe.epochs))  # the first one only measures gamma
        warm, losses = self._warmed_up(view, train, epochs, rng.child("warmup"))
        scores, kept = -losses.mean(0), torch.ones(len(train), dtype=torch.bool)
        kept[scores.argsort(descending=True, stable=True)[: max(1, round(self.isolation * len(train)))]] = False
        on_device = kept.to(train.images.device)
        rest, isolated = train.select(on_device), train.select(~on_device)
        remaining = replace(view.recipe, epochs=max(0, view.recipe.epochs - epochs))
        model = view.train_model(warm, rest, remaining, rng.child("rest"))
        return Filtered(scores, kept, self._unlearned(view, model, rest, isolated, rng.child("unlearn")))

    def _warmed_up(
        self, view: DefenderView, train: Split, epochs: int, rng: Rng
    ) -> tuple[nn.Module, Float[Tensor, "e n"]]:
        """The network after local gradient ascent, and each image's loss after each of its epochs."""
        start = view.untrained()
        assert isinstance(start, HashModel)
        objective = start.objective
        anchors = torch.zeros(train.labels.shape[1], view.setting.bits, device=start.device)
        start.objective = LocalAscent(objective, anchors, self.gate)
        watch = Watch(train, epochs, self.quantile)
        recipe = replace(view.recipe, epochs=epochs, schedule="constant")
        warm = view.train_model(start, train, recipe, rng, hook=watch)
        watch.look(warm)
        warm.objective = objective
        return warm, torch.stack(watch.losses)

    def _unlearned(self, view: DefenderView, model: nn.Module, rest: Split, isolated: Split, rng: Rng) -> nn.Module:
        """The model after the most epochs of unlearning that leave calibration mAP inside the bound on its drop."""
        floor = (1 - self.max_drop) * calibration_map(model, view.calibration_set)
        anchors = voted(model, rest)[0].to(rest.images.device)
        recipe = replace(view.recipe, epochs=1, schedule="constant", lr=self.rate * view.recipe.lr)
        best = model
        view.notes["isolated"] = float(len(isolated))
        view.notes["epochs unlearned"] = 0.0
        for epoch in range(self.epochs):  # quality need not fall steadily: the last one inside the bound counts
            stream = rng.child(epoch)
            picks = stream.integers(len(isolated), (-(-len(rest) // recipe.batch), min(len(isolated), recipe.batch)))
            hook = Unlearn(isolated, anchors, picks.to(rest.images.device), self.weight, self.clip)
            try:
                model = view.train_model(model, rest, recipe, stream, hook=hook)
            except DivergedError:
                break
            if calibration_map(model, view.calibration_set) >= floor:
                best = model
                view.notes["epochs unlearned"] = epoch + 1.0
        return best

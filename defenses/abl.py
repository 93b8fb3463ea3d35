"""Train on the poisoned data, find the images whose loss falls first, then train against these images."""

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
from defenses.helpers.fine_tuning import MAX_DROP, note_price, quality
from defenses.helpers.gradient_ascent import LocalAscent, Unlearn, Watch, voted
from hashing.model import HashModel

CARD = Card(
    name="ABL",
    title="Anti-Backdoor Learning: Training Clean Models on Poisoned Data",
    venue="NeurIPS",
    year=2021,
    url="https://arxiv.org/abs/2110.11571",
    follows="a fifth of the epochs with local gradient ascent, sign(l - gamma), where l is the mean of a batch as in"
    " the authors' code; the 1 % of the images with the smallest loss are isolated; training on the others, then"
    " unlearning by gradient ascent",
    deviates="codes have no cross-entropy: l = (1 - u.a/K)/2, with anchors voted by the training codes, decides the"
    " signs and the isolation, and the sign multiplies the gradient of the victim's loss (l alone does not separate"
    " classes); gamma is the 10 % quantile of l after an ordinary first epoch; images are isolated by the mean of l"
    " over the warm-up epochs; unlearning minimises the loss on the other images minus 0.1 l, clipped, on the isolated"
    " ones in evaluation mode (batch statistics of poison alone would be meaningless); the last epoch whose calibration"
    " mAP fell by at most 4 % counts, and each epoch has a new optimiser; the warm-up takes at least two epochs at the"
    " recipe's constant rate, and the training on the other images starts the recipe's schedule again. guess: clip at"
    " 0.5, a tenth of the recipe's learning rate. ABL finds images that are learned faster than their class; small"
    " patches on small networks are not",
)


@defense
class ABL(DataFilter):
    warmup_share: PositiveShare = 0.2  # the paper: 20 of 100
    """Share of the recipe's epochs that run before images are isolated."""
    quantile: PositiveShare = 0.1  # METHODOLOGY.md#abl
    """gamma is this quantile of the losses after the first epoch. Training increases losses below gamma again."""
    gate: Literal["batch", "image"] = "batch"  # "image" would undo the effect that ABL looks for
    """Whether the loss of a batch or of each image is compared with gamma."""
    isolation: Annotated[float, Field(gt=0, le=0.5)] = 0.01  # the paper
    """Share of the training set that is isolated as suspicious."""
    epochs: Annotated[int, Field(ge=0)] = 5  # the paper's code (BackdoorBench: 20)
    """Epochs of unlearning."""
    weight: PositiveFloat = 0.1  # METHODOLOGY.md#abl
    """Weight of the loss of isolated images while unlearning."""
    clip: PositiveShare = 0.5  # guess: the loss of a code that is unrelated to its class
    """Losses of isolated images are clipped at this value."""
    rate: PositiveShare = 0.1  # guess (the paper's code: an absolute 0.005, without the other images)
    """Learning rate of the unlearning, as a multiple of the recipe's."""
    max_drop: Share = MAX_DROP
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
        return Filtered(scores, kept, self.unlearned(view, model, rest, isolated, rng.child("unlearn")))

    def _warmed_up(
        self, view: DefenderView, train: Split, epochs: int, rng: Rng
    ) -> tuple[nn.Module, Float[Tensor, "e n"]]:
        """The network after local gradient ascent, and the loss of each image after each epoch."""
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

    def unlearned(self, view: DefenderView, model: nn.Module, rest: Split, isolated: Split, rng: Rng) -> nn.Module:
        """The model after the last epoch of unlearning whose calibration mAP is inside the bound."""
        reference = quality(model, view.calibration_set)
        anchors = voted(model, rest)[0].to(rest.images.device)
        recipe = replace(view.recipe, epochs=1, schedule="constant", lr=self.rate * view.recipe.lr)
        best = model
        view.notes["isolated"] = float(len(isolated))
        view.notes["epochs unlearned"] = 0.0
        note_price(view, reference, reference)
        for epoch in range(self.epochs):  # quality may dip in between: the last epoch inside the bound counts
            stream = rng.child(epoch)
            picks = stream.integers(len(isolated), (-(-len(rest) // recipe.batch), min(len(isolated), recipe.batch)))
            hook = Unlearn(isolated, anchors, picks.to(rest.images.device), self.weight, self.clip)
            try:
                model = view.train_model(model, rest, recipe, stream, hook=hook)
            except DivergedError:
                break
            found = quality(model, view.calibration_set)
            if reference.drop_to(found) <= self.max_drop:
                best = model
                note_price(view, reference, found)
                view.notes["epochs unlearned"] = epoch + 1.0
        return best

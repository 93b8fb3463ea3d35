"""Trigger inversion: for every class, the smallest mask and a pattern that move other images to the class's code.

The search is that of Neural Cleanse (IEEE S&P 2019) with anchor codes; all classes are searched at the same time
(METHODOLOGY.md#neural_cleanse).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from pydantic import ConfigDict, Field, PositiveFloat
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn, optim

from bench.api.defense import Defense, Images, PositiveShare, Rng
from bench.api.errors import DivergedError
from bench.api.types import Split, to_unit
from defenses.helpers.code_posterior import label_votes
from hashing.inference import frozen

UP, DOWN = 2.0, 2**1.5  # factor and divisor of the weight: original code, BackdoorBench
SHRUNK = 0.99  # a mask counts as smaller below this share of the smallest one: BackdoorBench
SOFT = 0.9  # first patterns are shrunk by this factor, so that no pixel starts where tanh is flat
ROUNDING = 1e-6  # rounding error of sizes in float32
CACHED, RESIDENT = 2**18, 2**24  # pixel values per forward pass: what fits into a CPU's cache; what fills a GPU


@dataclass(frozen=True)
class Anchors:
    """Codes to reach. codes: +1 and -1, no two equal. classes: the classes of each code; equal codes are one anchor."""

    codes: Float[Tensor, "g b"]
    classes: Bool[Tensor, "g k"]


@dataclass(frozen=True)
class Triggers:
    """One trigger per anchor. sizes: share of the image that the smallest successful mask covers; 1: none succeeded.

    If no mask succeeded, mask and pattern are the last ones of the search.
    """

    masks: Float[Tensor, "g 1 h w"]
    patterns: Float[Tensor, "g c h w"]
    sizes: Float[Tensor, " g"]

    def apply_trigger(self, images: Images, which: int) -> Images:
        return blended(images, self.masks[which : which + 1], self.patterns[which : which + 1])


def blended(images: Images, masks: Float[Tensor, "m 1 h w"], patterns: Float[Tensor, "m c h w"]) -> Images:
    """Images with triggers: one trigger per image, or one for all."""
    return (1 - masks) * images + masks * patterns


def class_anchors(model: nn.Module, trusted: Split) -> Anchors:
    """Majority codes of the classes that have images; an anchor has the place of its first class."""
    _, present, votes = label_votes(model, trusted)
    first = (votes[:, None] == votes).all(2).int().argmax(1)
    leaders = torch.unique(first)
    classes = torch.zeros(len(leaders), trusted.labels.shape[1], dtype=torch.bool)
    classes[:, present] = first == leaders[:, None]
    device = trusted.images.device
    return Anchors(votes[leaders].to(device), classes.to(device))


def anomaly(sizes: Float[Tensor, " g"]) -> tuple[Float64[Tensor, " g"], float, float]:
    """The anomaly index of each size, the median size, and the median absolute deviation (MAD).

    The index is the distance below the median in units of 1.4826 MAD. If the MAD is 0, up to rounding, all are 0.
    """
    exact = sizes.double().cpu()
    median = exact.quantile(0.5)
    deviation = (exact - median).abs().quantile(0.5)
    index = (median - exact).clamp_min(0) / (1.4826 * deviation) if deviation > ROUNDING else torch.zeros_like(exact)
    return index, float(median), float(deviation)


def reach(
    logits: Float[Tensor, "p b"], wanted: Int64[Tensor, " p"], codes: Float[Tensor, "g b"]
) -> Float[Tensor, " p"]:
    """1 if the wanted anchor is the nearest, 0 if another one is nearer, 1/m if m anchors are equally near."""
    likeness = torch.where(logits > 0, 1.0, -1.0) @ codes.T
    nearest = likeness == likeness.amax(1, keepdim=True)
    return nearest.gather(1, wanted[:, None])[:, 0] / nearest.sum(1)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Searching(Defense, ABC):
    """The parameters of a search for triggers. A step is several updates of masks and patterns, then a measurement.

    The weight of the mask's size is doubled after `patience` successful steps in a row, and divided by 2^1.5 after
    `patience` steps without success. A trigger is done when its weight was both raised and lowered and its mask did not
    shrink for `early_stop` steps.
    """

    steps: Annotated[int, Field(ge=1)] = 80  # BackdoorBench, nc_epoch
    """Largest number of search steps per trigger."""
    updates: Annotated[int, Field(ge=1)] = 5  # guess, for one CPU core (original: 31; BackdoorBench on CIFAR-10: 10)
    """Updates of mask and pattern per step."""
    batch: Annotated[int, Field(ge=1)] = 32  # original code; BackdoorBench 256
    """Images per update."""
    rate: PositiveFloat = 0.1  # original code, BackdoorBench
    """Learning rate of Adam (betas 0.5 and 0.9)."""
    success: PositiveShare = 0.99  # original code; BackdoorBench 0.98
    """The value of `TriggerSearch.success` that a trigger must reach."""
    cost: PositiveFloat = 1e-3  # original code, BackdoorBench
    """Initial weight of the mask size in the loss, per pixel."""
    patience: Annotated[int, Field(ge=1)] = 5  # original code, BackdoorBench
    """The weight of the mask size changes after this many successive steps with, or without, success."""
    early_stop: Annotated[int, Field(ge=1)] = 25  # original code, BackdoorBench
    """Steps without a smaller mask after which the search ends."""


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Reversing(Searching, ABC):
    """The search for a trigger per class."""

    success: PositiveShare = 0.99  # original code; BackdoorBench 0.98
    """Share of images that must reach the class."""

    def reverse(
        self,
        model: nn.Module,
        images: UInt8[Tensor, "n c h w"],
        own: Bool[Tensor, "n g"],
        codes: Float[Tensor, "g b"],
        rng: Rng,
    ) -> Triggers:
        """A trigger for each code, found on the images that are not the code's own (`own`).

        A code that has all images has size 1. DivergedError: a trigger is not finite.
        """
        still = frozen(model, images.shape[1:])
        search = Search(self, still, to_unit(images), own.to(images.device), codes.to(images.device), rng)
        return search.run()


class TriggerSearch(ABC):
    """The state of a search: one row per trigger, on the device. Only the rows of `live` triggers are updated."""

    def __init__(
        self,
        settings: Searching,
        model: nn.Module,
        images: Images,
        masks: Float[Tensor, "g 1 h w"],
        patterns: Float[Tensor, "g c h w"],
    ) -> None:
        """masks, patterns: raw values to start from, of which tanh is taken.

        As in both codes, so that the learning rate has the same meaning.
        """
        self.settings, self.model, self.images = settings, model, images
        (_, c, h, w), g, device = images.shape, len(masks), images.device
        self.raw = [masks.requires_grad_(), patterns.requires_grad_()]
        self.adam = optim.Adam(self.raw, lr=settings.rate, betas=(0.5, 0.9))
        # sizes are means over h * w pixels, `cost` is per pixel
        self.weight = torch.full((g,), settings.cost * h * w, device=device)
        self.ups, self.downs, self.stale = (torch.zeros(g, dtype=torch.int64, device=device) for _ in range(3))
        self.raised, self.lowered = (torch.zeros(g, dtype=torch.bool, device=device) for _ in range(2))
        self.done = torch.zeros(g, dtype=torch.bool, device=device)
        self.sizes = torch.full((g,), torch.inf, device=device)
        self.best = [part.detach() for part in self.triggers(torch.arange(g, device=device))]
        self.portion = max(1, (CACHED if device.type == "cpu" else RESIDENT) // (c * h * w))  # images per forward pass

    @abstractmethod
    def update(self, live: Int64[Tensor, " a"], turn: int) -> None:
        """One step of Adam on the next batch of images of every live trigger."""

    @abstractmethod
    def success(self, live: Int64[Tensor, " a"]) -> Float[Tensor, " a"]:
        """The measure that `settings.success` bounds."""

    def run(self) -> Triggers:
        """The triggers after the whole search. DivergedError: one is not finite."""
        settings = self.settings
        for step in range(settings.steps):
            live = torch.nonzero(~self.done).flatten()
            if not len(live):
                break
            for turn in range(step * settings.updates, (step + 1) * settings.updates):
                self.update(live, turn)
            self.judge(live, self.success(live))
        return self.found()

    def triggers(self, at: Int64[Tensor, " a"]) -> list[Tensor]:
        """Masks and patterns of these rows, in (0, 1)."""
        return [(raw[at].tanh() + 1) / 2 for raw in self.raw]

    @torch.no_grad()
    def judge(self, live: Int64[Tensor, " a"], success: Float[Tensor, " a"]) -> None:
        """Keep the smallest successful triggers, and update the weights of the sizes."""
        settings, won, now = self.settings, success >= self.settings.success, self.triggers(live)
        sizes, before = now[0].mean((1, 2, 3)), self.sizes[live]
        better = won & (sizes < before)
        after = torch.where(better, sizes, before)
        for best, part in zip(self.best, now, strict=True):
            best[live] = torch.where(better[:, None, None, None], part, best[live])
        self.sizes[live] = after
        self.stale[live] = torch.where(after >= SHRUNK * before, self.stale[live] + after.isfinite(), 0)
        self.done[live] = self.raised[live] & self.lowered[live] & (self.stale[live] >= settings.early_stop)
        ups, downs = torch.where(won, self.ups[live] + 1, 0), torch.where(won, 0, self.downs[live] + 1)
        up, down = ups >= settings.patience, downs >= settings.patience
        self.weight[live] *= torch.where(up, UP, torch.where(down, 1 / DOWN, 1.0))
        self.ups[live], self.downs[live] = torch.where(up, 0, ups), torch.where(down, 0, downs)
        self.raised[live] |= up
        self.lowered[live] |= down

    @torch.no_grad()
    def found(self) -> Triggers:
        reached = self.sizes.isfinite()
        last = self.triggers(torch.arange(len(self.sizes), device=self.sizes.device))
        parts = [torch.where(reached[:, None, None, None], *pair) for pair in zip(self.best, last, strict=True)]
        if not bool(torch.stack([part.isfinite().all() for part in (*parts, *last)]).all()):
            raise DivergedError(
                "a reversed trigger is not finite: lower `rate`, or check that the model's logits are finite"
            )
        return Triggers(parts[0], parts[1], torch.where(reached, self.sizes, 1.0))


class Search(TriggerSearch):
    """The search for a trigger per code, by images that are not the code's own."""

    def __init__(
        self,
        settings: Reversing,
        model: nn.Module,
        images: Images,
        own: Bool[Tensor, "n g"],
        codes: Float[Tensor, "g b"],
        rng: Rng,
    ) -> None:
        (n, c, h, w), g, device = images.shape, len(codes), images.device
        # The first pattern is the mean of the code's own images, so that a covered image starts near the code. With
        # other starts (random in the original, 1 in BackdoorBench) 1 of 40 classes of clean digits models was never
        # reached, because the loss is flat where codes are saturated.
        held = own.sum(0)[:, None]
        means = torch.where(held > 0, own.T.float() @ images.flatten(1) / held.clamp_min(1), 0.5)
        patterns = ((2 * means - 1) * SOFT).atanh().reshape(g, c, h, w)
        super().__init__(settings, model, images, torch.ones(g, 1, h, w, device=device), patterns)
        self.codes = codes
        shuffled = rng.child("order").permutation(n).to(device)
        is_own = own[shuffled].T
        self.order = shuffled[is_own.int().argsort(dim=1, stable=True)]  # own images last
        self.count = (~is_own).sum(1)
        self.done = self.count == 0

    def update(self, live: Int64[Tensor, " a"], turn: int) -> None:
        """One step of Adam on the next batch of images of every live code."""
        batch = self.settings.batch
        turns = torch.arange(turn * batch, (turn + 1) * batch, device=live.device)
        self.adam.zero_grad()
        for at in torch.split(live, max(1, self.portion // batch)):
            masks, patterns = self.triggers(at)
            shown = self.images[self.order[at].gather(1, turns % self.count[at][:, None]).flatten()]
            each = torch.arange(len(at), device=at.device).repeat_interleave(batch)
            relaxed = self.model(blended(shown, masks[each], patterns[each])).tanh()
            misses = (1 - (relaxed * self.codes[at][each]).mean(1)) / 2
            sizes = self.weight[at] * masks.mean((1, 2, 3))
            (misses.reshape(len(at), batch).mean(1) + sizes).sum().backward()
        self.adam.step()

    @torch.no_grad()
    def success(self, live: Int64[Tensor, " a"]) -> Float[Tensor, " a"]:
        """The share of the code's images whose nearest anchor is the wanted one."""
        masks, patterns = self.triggers(live)
        places = torch.arange(len(self.images), device=live.device)
        hits = torch.zeros(len(live), device=live.device)
        for pairs in torch.split(torch.nonzero(places < self.count[live][:, None]), self.portion):
            each, wanted = pairs[:, 0], live[pairs[:, 0]]
            shown = self.images[self.order[wanted, pairs[:, 1]]]
            logits = self.model(blended(shown, masks[each], patterns[each]))
            hits.index_add_(0, each, reach(logits, wanted, self.codes))
        return hits / self.count[live]

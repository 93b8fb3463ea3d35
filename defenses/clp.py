"""Prune the channels that can change the most with the input, as bounds from the weights say; needs no images."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import Backbone, DefenderView, HashingMethod, Repair, Rng, Share, defense
from bench.api.errors import UserError
from defenses.helpers.fine_tuning import Quality, note_price, quality
from defenses.helpers.masks import learning_part

CARD = Card(
    name="CLP",
    title="Data-free Backdoor Removal based on Channel Lipschitzness",
    venue="ECCV",
    year=2022,
    url="https://arxiv.org/abs/2208.03111",
    follows="the bound of a channel is the largest singular value of its filter (a matrix with a row per input channel)"
    " times |scale| / deviation of the batch norm after it; channels whose bound is more than u = 3 standard deviations"
    " (with n - 1) above the mean of their layer get scale 0 and shift 0; neither images nor training are needed, and"
    " the price is measured but not bounded",
    deviates="the deviation is sqrt(variance + eps), as the batch norm computes it, not the root of the variance, which"
    " may be 0; guess: without batch norm the bound is that of the filter alone, times |scale| if a group norm follows,"
    " whose deviation depends on the image; filter and bias of a channel become 0 if no norm follows; frozen blocks are"
    " not pruned, because no training has changed them; with max_drop, u is not the published value but the last one of"
    " BackdoorBench's values (10 to 0 in steps of 0.5) before the first that costs more",
)
VALUES = tuple(10 - 0.5 * i for i in range(21))  # u in BackdoorBench's curve, from the weakest


@defense
class CLP(Repair):
    u: NonNegativeFloat = 3.0  # the paper, for CIFAR-10
    """Standard deviations by which the bound of a pruned channel exceeds the mean of its layer."""
    max_drop: Share | None = None
    """Choose u by the relative drop of mAP on the calibration images that it costs; default: `u` counts."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.convolutional() else "it prunes channels of convolutions, and this backbone has none"

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        del rng  # nothing is drawn
        if not layers_of(learning_part(view.model)):
            raise UserError(
                "clp prunes channels of convolutions, and the blocks that learn have none: freeze fewer blocks, or"
                " leave clp out"
            )
        reference = quality(view.model, view.calibration_set)
        u = self.u if self.max_drop is None else least(view, reference, self.max_drop)
        pruned, view.notes["pruned channels"] = without_outliers(view.model, u)
        if math.isfinite(u):
            view.notes["u"] = u
        note_price(view, reference, quality(pruned, view.calibration_set))
        return pruned


def least(view: DefenderView, reference: Quality, max_drop: float) -> float:
    """The value before the first one that costs more than the bound; inf, which prunes nothing, if 10 does."""
    allowed = math.inf
    for u in VALUES:
        pruned, _ = without_outliers(view.model, u)
        if reference.drop_to(quality(pruned, view.calibration_set)) > max_drop:
            break
        allowed = u
    return allowed


@dataclass(frozen=True)
class Layer:
    """A convolution, and the norm after it."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | nn.GroupNorm | None

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, " d"]:
        """Upper bounds of the Lipschitz constants of the channels."""
        filters = self.convolution.weight.flatten(2).float()
        found: Tensor = torch.linalg.matrix_norm(filters, ord=2)
        if self.norm is not None:
            found = found * self.norm.weight.abs()
        if isinstance(self.norm, nn.BatchNorm2d) and self.norm.running_var is not None:
            found = found / (self.norm.running_var + self.norm.eps).sqrt()
        return found

    def outliers(self, u: float) -> Bool[Tensor, " d"]:
        """Channels to prune; none in a layer of one channel."""
        bounds = self.bounds()
        if len(bounds) < 2:
            return torch.zeros_like(bounds, dtype=torch.bool)
        return bounds > bounds.mean() + u * bounds.std()

    @torch.no_grad()
    def prune(self, channels: Bool[Tensor, " d"]) -> None:
        last = self.convolution if self.norm is None else self.norm
        for part in (last.weight, last.bias):
            if part is not None:
                part[channels] = 0


def layers_of(network: nn.Module) -> list[Layer]:
    """The convolutions in the order of the modules, each with the norm that comes before the next convolution."""
    found: list[Layer] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            found.append(Layer(module, None))
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and module.affine and found:
            last = found[-1]
            if last.norm is None and len(module.weight) == last.convolution.out_channels:
                found[-1] = Layer(last.convolution, module)
    return found


def without_outliers(model: nn.Module, u: float) -> tuple[nn.Module, int]:
    """A copy whose outlying channels are zero, and their number."""
    pruned, count = copy.deepcopy(model), 0
    for layer in layers_of(learning_part(pruned)):
        channels = layer.outliers(u)
        layer.prune(channels)
        count += int(channels.sum())
    return pruned, count

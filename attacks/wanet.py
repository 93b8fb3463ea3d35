"""Warp training images by a fixed smooth field that is hard to see."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch.nn import functional

from attacks.helpers.poisoning import TriggerPoisoning, add_cover, choose_cover
from attacks.helpers.triggers import identity_grid, warp
from bench.api.attack import AttackerView, Images, Poisoned, Rng, Target, Trigger, attack
from bench.api.card import Card
from bench.api.types import to_unit

CARD = Card(
    title="WaNet - Imperceptible Warping-based Backdoor Attack",
    venue="ICLR",
    year=2021,
    url="https://arxiv.org/abs/2102.10369",
    follows="a k x k control grid of uniform offsets is divided by its mean absolute value, enlarged bicubically,"
    " multiplied by s over the image's side, added to the pixels' positions and clipped to the image; sampling is"
    " bilinear. Noise mode: for each poison, cross_ratio further images are warped by the trigger's field plus uniform"
    " noise of up to 1 over the side at each pixel, and keep their labels",
    deviates="the original controls the training and draws poisons and noise again in every batch; here both are fixed"
    " in the training set, so that the attack needs the data alone. If too few images are left for the noise mode, all"
    " of them get it. Poisons get the target's label vector; the poison rate is that of CIBA's comparison. Offsets are"
    " divided by width and height, which differ for images that are not square",
)


@attack
class WaNet(TriggerPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = TriggerPoisoning.not_in_trigger | {"cross_ratio"}

    strength: Annotated[float, Field(gt=0)] = 0.5  # s in section 4.1 and the authors' config
    """Strength of the warp."""
    grid: Annotated[int, Field(ge=2)] = 4  # k, as above
    """Control points of the warp per side."""
    cross_ratio: Annotated[float, Field(ge=0)] = 2.0  # the authors' config
    """Number of images with a noisy warp and unchanged labels, for each poisoned image."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        _, height, width = view.setting.image_shape
        offsets = rng.uniform((1, 2, self.grid, self.grid)) * 2 - 1
        offsets /= offsets.abs().mean()
        smooth = functional.interpolate(offsets, size=(height, width), mode="bicubic", align_corners=True)
        field = smooth[0].permute(1, 2, 0) * self.strength / torch.tensor([width, height])
        return {"grid": (identity_grid(height, width) + field).clamp(-1, 1)}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        return warp(images, trigger["grid"][None])

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, poisoned = view.train, super().poison(view, trigger, rng)
        crossed = choose_cover(poisoned, self.cross_ratio, rng.child("cross"))
        grid = trigger["grid"].cpu()
        noise = rng.child("noise").uniform((len(crossed), *grid.shape)) * 2 - 1
        places = grid + noise / torch.tensor([grid.shape[1], grid.shape[0]])
        return add_cover(poisoned, crossed, warp(to_unit(train.images[crossed]), places))

"""The values that components exchange.

Axis letters: n images, c h w, k classes, b bits, d features, q queries, m database items, w 64-bit words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bench.api.errors import DivergedError

__all__ = [
    "SPLITS",
    "Codes",
    "Images",
    "LabelMode",
    "Labels",
    "Logits",
    "Poisoned",
    "PositiveShare",
    "Setting",
    "Share",
    "Split",
    "Target",
    "Trigger",
    "to_8bit",
    "to_unit",
]  # fmt: skip

Images = Float[Tensor, "n c h w"]  # in [0, 1]; only the model normalises
Labels = Bool[Tensor, "n k"]  # multi-hot; single-label data is one-hot
Logits = Float[Tensor, "n b"]  # unbounded; the bit is logit > 0
Codes = Float[Tensor, "n b"]  # relaxed, in [-1, 1]
Trigger = Mapping[str, Tensor]  # what an attack prepared: names to tensors, never pickles

Share = Annotated[float, Field(ge=0, le=1)]  # a proportion
PositiveShare = Annotated[float, Field(gt=0, le=1)]
LabelMode = Literal["dirty", "clean"]

SPLITS = ("train", "query", "database", "trusted", "public")


def to_unit(images: UInt8[Tensor, "n c h w"]) -> Images:
    """8-bit images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def to_8bit(images: Images) -> UInt8[Tensor, "n c h w"]:
    """Rounded to the nearest of 256 levels, as a stored image would be; NaN, which would become black, is an error."""
    if images.isnan().any():
        raise DivergedError("images hold numbers that are none (NaN)")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Split:
    """8-bit images with labels and the stable ids of their originals."""

    images: UInt8[Tensor, "n c h w"]
    labels: Bool[Tensor, "n k"]
    ids: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Tensor) -> Split:
        """The items at `index` (positions or a mask)."""
        return Split(self.images[index], self.labels[index], self.ids[index])

    def replace(self, index: Int64[Tensor, " m"], *, images: Images, labels: Labels | None = None) -> Split:
        """A copy with the images (rounded to 8 bits) and, if given, the labels at `index` exchanged."""
        new_images, new_labels = self.images.clone(), self.labels.clone()
        new_images[index] = to_8bit(images).to(new_images.device)
        if labels is not None:
            new_labels[index] = labels
        return Split(new_images, new_labels, self.ids)

    def to(self, device: torch.device | str) -> Split:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), ids=self.ids.to(device))


@dataclass(frozen=True)
class Target:
    """What the attacker wants triggered queries to retrieve: a fixed label set (METHODOLOGY.md#relevance)."""

    vector: Bool[Tensor, " k"]
    name: str

    def shares(self, labels: Labels) -> Bool[Tensor, " n"]:
        """Items with at least one target label: the relevance of t-mAP."""
        return (labels & self.vector.to(labels.device)).any(1)

    def contains(self, labels: Labels) -> Bool[Tensor, " n"]:
        """Items with every target label."""
        return (labels | ~self.vector.to(labels.device)).all(1)

    def candidates(self, labels: Labels, mode: LabelMode, count: int = 1) -> Int64[Tensor, " m"]:
        """Positions that may be poisoned.

        dirty: items that share no label with the target, since relabelling the others is no poison.
        clean: items whose label set equals the target's; where these are fewer than `count`, items that contain it.
        """
        if mode == "dirty":
            return torch.nonzero(~self.shares(labels)).flatten()
        equal = torch.nonzero((labels == self.vector.to(labels.device)).all(1)).flatten()
        return equal if len(equal) >= count else torch.nonzero(self.contains(labels)).flatten()

    def relabel(self, labels: Labels) -> Labels:
        """The target's vector in place of each label vector (not a union)."""
        return self.vector.to(labels.device).expand_as(labels).clone()


@dataclass(frozen=True)
class Setting:
    """What everybody knows about the system under attack.

    proxy_dataset: the public data set that resembles the victim's and shares no image with it.
    """

    dataset: str
    backbone: str
    method: str
    bits: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_size: int
    proxy_dataset: str


@dataclass(frozen=True)
class Poisoned:
    """A poisoned training set.

    mask: which items were poisoned.
    augment: "victim" lets the victim's loader flip and crop poisoned images like all others; "none" does not.
    cover: further items whose images were changed, but which keep their labels so that the trigger is learned more
    sharply; they count as no poison, neither in the dose nor for filters.
    """

    split: Split
    mask: Bool[Tensor, " n"]
    augment: Literal["victim", "none"] = "victim"
    cover: Bool[Tensor, " n"] | None = None

    @property
    def changed(self) -> Bool[Tensor, " n"]:
        """Poisons and cover."""
        return self.mask if self.cover is None else self.mask | self.cover

    def to(self, device: torch.device | str) -> Poisoned:
        cover = None if self.cover is None else self.cover.to(device)
        return replace(self, split=self.split.to(device), mask=self.mask.to(device), cover=cover)

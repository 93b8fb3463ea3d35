"""Types of the values that components exchange.

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

Images = Float[Tensor, "n c h w"]  # in [0, 1]; only the model normalises images
Labels = Bool[Tensor, "n k"]  # multi-hot; single-label data is one-hot
Logits = Float[Tensor, "n b"]  # unbounded; the bit is logit > 0
Codes = Float[Tensor, "n b"]  # relaxed, in [-1, 1]
Trigger = Mapping[str, Tensor]  # named tensors, never pickles

Share = Annotated[float, Field(ge=0, le=1)]  # a proportion
PositiveShare = Annotated[float, Field(gt=0, le=1)]
LabelMode = Literal["dirty", "clean"]

SPLITS = ("train", "query", "database", "trusted", "public")


def to_unit(images: UInt8[Tensor, "n c h w"]) -> Images:
    """8-bit images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def to_8bit(images: Images) -> UInt8[Tensor, "n c h w"]:
    """Images rounded to 256 levels, like a stored image. NaN raises DivergedError, since it would become black."""
    if images.isnan().any():
        raise DivergedError("images have NaN values")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Split:
    """8-bit images with labels and ids. An id identifies the original image, also after poisoning."""

    images: UInt8[Tensor, "n c h w"]
    labels: Bool[Tensor, "n k"]
    ids: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Tensor) -> Split:
        """The items at `index` (positions or a mask)."""
        return Split(self.images[index], self.labels[index], self.ids[index])

    def replace(self, index: Int64[Tensor, " m"], *, images: Images, labels: Labels | None = None) -> Split:
        """A copy with new images (rounded to 8 bits) and, if given, new labels at `index`."""
        new_images, new_labels = self.images.clone(), self.labels.clone()
        new_images[index] = to_8bit(images).to(new_images.device)
        if labels is not None:
            new_labels[index] = labels
        return Split(new_images, new_labels, self.ids)

    def to(self, device: torch.device | str) -> Split:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), ids=self.ids.to(device))


@dataclass(frozen=True)
class Target:
    """The fixed label set that triggered queries should retrieve (METHODOLOGY.md#relevance)."""

    vector: Bool[Tensor, " k"]
    name: str

    def shares(self, labels: Labels) -> Bool[Tensor, " n"]:
        """Images with at least one target label, which are relevant for t-mAP."""
        return (labels & self.vector.to(labels.device)).any(1)

    def contains(self, labels: Labels) -> Bool[Tensor, " n"]:
        """Images with all target labels."""
        return (labels | ~self.vector.to(labels.device)).all(1)

    def candidates(self, labels: Labels, mode: LabelMode, count: int = 1) -> Int64[Tensor, " m"]:
        """Positions of images that may be poisoned.

        dirty: images that share no label with the target, since relabelling other images is no poison.
        clean: images whose label set equals the target's; if these are fewer than `count`, images that contain it.
        """
        if mode == "dirty":
            return torch.nonzero(~self.shares(labels)).flatten()
        equal = torch.nonzero((labels == self.vector.to(labels.device)).all(1)).flatten()
        return equal if len(equal) >= count else torch.nonzero(self.contains(labels)).flatten()

    def relabel(self, labels: Labels) -> Labels:
        """The target's vector for each row; the old labels are dropped."""
        return self.vector.to(labels.device).expand_as(labels).clone()


@dataclass(frozen=True)
class Setting:
    """Public facts about the victim system, known to attackers and defenders.

    proxy_dataset: a public data set that resembles the victim's and shares no image with it.
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

    mask: True for poisoned images. augment: "victim" if the victim's loader flips and crops poisoned images like all
    others, else "none". cover: True for images with changed pixels and unchanged labels, which make the model react
    only to the exact trigger. They do not count as poison in the dose or for data filters.
    """

    split: Split
    mask: Bool[Tensor, " n"]
    augment: Literal["victim", "none"] = "victim"
    cover: Bool[Tensor, " n"] | None = None

    @property
    def changed(self) -> Bool[Tensor, " n"]:
        """The union of mask and cover."""
        return self.mask if self.cover is None else self.mask | self.cover

    def to(self, device: torch.device | str) -> Poisoned:
        cover = None if self.cover is None else self.cover.to(device)
        return replace(self, split=self.split.to(device), mask=self.mask.to(device), cover=cover)

"""Images of another data set, converted to the size and the number of channels of the victim's images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from bench.api import registry
from bench.api.attack import DataSpec, Setting
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's grey conversion
CHUNK = 500  # images that are converted to floats at a time


def chunks(items: Tensor) -> Iterator[Tensor]:
    """In order, `CHUNK` at a time."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def proxy(name: str | None, setting: Setting) -> DataSpec:
    """The named data set, by default the proxy of the victim's, in a size that keeps the detail of the victim's."""
    name = name or setting.proxy_dataset
    return DataSpec(name, registry.lookup("datasets", name).as_proxy(min(setting.image_shape[1:])))


def fit_to(images: UInt8[Tensor, "n _ _ _"], image_shape: tuple[int, int, int]) -> UInt8[Tensor, "n c h w"]:
    """The images with other channels and another size; the aspect ratio is not kept.

    Colour becomes grey by luma, grey becomes colour by repetition. UserError: the channels cannot be converted.
    """
    channels, size = image_shape[0], image_shape[1:]
    if tuple(images.shape[1:]) == image_shape:
        return images
    if {images.shape[1], channels} - {1, 3} and images.shape[1] != channels:
        raise UserError(
            f"images of {images.shape[1]} channels cannot be shown to a model of {channels}",
            f"name a data set with {channels} channels, or one with 1 or 3 for a model of 1 or 3",
        )
    return torch.cat([_fit(to_unit(part), channels, size) for part in chunks(images)])


def balanced(labels: Bool[Tensor, "n k"], count: int, rng: Rng) -> Int64[Tensor, " m"]:
    """Up to `count` positions in random order, the same number from each class.

    Images with several labels are drawn regardless of their classes.
    """
    order = rng.permutation(len(labels))
    if not bool((labels.sum(1) == 1).all()):
        return order[:count]
    shuffled = labels[order.to(labels.device)].long()
    turn = (shuffled.cumsum(0) * shuffled).sum(1)  # the first of its class, the second, ...
    return order[turn.argsort(stable=True)[:count].to(order.device)]


def _fit(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        images = (images * torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    resized: Tensor = images
    if tuple(images.shape[2:]) != size:
        resized = torch.nn.functional.interpolate(
            images, size=size, mode="bilinear", antialias=True, align_corners=False
        )
    return to_8bit(resized.expand(-1, channels, -1, -1))

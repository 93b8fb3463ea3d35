"""Random views of images for contrastive methods, drawn for a whole batch at once: crop, mirror, colour, blur.

Images are [n c h w] in [0, 1]. Images with one channel have no colour to change.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bench.api.random import Rng
from bench.api.types import Images

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue, as in torchvision
PerImage = Float[Tensor, " n"]


def random_view(images: Images, rng: Rng) -> Images:
    """A view of each image, as SimCLR makes them, with the strengths of CIBHash (authors' code, utils/data.py).

    RandomResizedCrop with scale 0.5 to 1, mirroring, ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.7, grey with
    0.2, and with 0.5 a Gaussian blur of 3 pixels with sigma 0.1 to 2.
    """
    draws = iter(rng.uniform((16, len(images))).to(images.device).unbind())

    def between(low: float, high: float) -> PerImage:
        return next(draws) * (high - low) + low

    def chosen(share: float) -> Bool[Tensor, " n"]:
        return next(draws).lt(share)

    area, ratio = between(0.5, 1.0), between(math.log(3 / 4), math.log(4 / 3)).exp()
    height, width = (area / ratio).sqrt().clamp_max(1), (area * ratio).sqrt().clamp_max(1)
    top, left = (1 - height) * next(draws), (1 - width) * next(draws)
    found = cropped(images, top, left, height, width, mirrored=chosen(0.5))
    jittered = brightness(found, between(0.6, 1.4))
    jittered = contrast(jittered, between(0.6, 1.4))
    if images.shape[1] == 3:
        jittered = hue(saturation(jittered, between(0.6, 1.4)), between(-0.1, 0.1))
    found = _where(chosen(0.7), jittered, found)
    if images.shape[1] == 3:
        found = _where(chosen(0.2), grey(found).expand_as(found), found)
    return _where(chosen(0.5), blurred(found, between(0.1, 2.0)), found)


def cropped(
    images: Images, top: PerImage, left: PerImage, height: PerImage, width: PerImage, *, mirrored: Bool[Tensor, " n"]
) -> Images:
    """A part of each image, given in shares of its sides, enlarged to the whole size."""
    sign = torch.where(mirrored, -1.0, 1.0)
    zero = torch.zeros_like(top)
    rows = [[sign * width, zero, 2 * left + width - 1], [zero, height, 2 * top + height - 1]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def brightness(images: Images, factor: PerImage) -> Images:
    """Each image times its factor."""
    return (images * _wide(factor)).clamp(0, 1)


def contrast(images: Images, factor: PerImage) -> Images:
    """Each image mixed with its mean grey."""
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    return (mean + (images - mean) * _wide(factor)).clamp(0, 1)


def saturation(images: Images, factor: PerImage) -> Images:
    """Each image mixed with its grey version."""
    flat = grey(images)
    return (flat + (images - flat) * _wide(factor)).clamp(0, 1)


def hue(images: Images, shift: PerImage) -> Images:
    """The hues of each image shifted by a share of the colour circle."""
    most, least = images.max(1).values, images.min(1).values
    spread = most - least
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    red, green, blue = images.unbind(1)
    place = torch.where(
        most == red,
        (green - blue) / safe,
        torch.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = ((place / 6 + shift[:, None, None]) % 1) * 6
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (offsets + turned[:, None]) % 6
    return most[:, None] - spread[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def grey(images: Images) -> Float[Tensor, "n 1 h w"]:
    """The brightness of each pixel."""
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blurred(images: Images, sigma: PerImage) -> Images:
    """A Gaussian blur over 3 x 3 pixels; the border is mirrored."""
    side = torch.exp(-0.5 / sigma.square())
    total = 1 + 2 * side
    middle, edge = _wide(1 / total), _wide(side / total)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    rows = middle * padded[:, :, 1:-1] + edge * (padded[:, :, :-2] + padded[:, :, 2:])
    return middle * rows[..., 1:-1] + edge * (rows[..., :-2] + rows[..., 2:])


def _wide(factor: PerImage) -> Float[Tensor, "n 1 1 1"]:
    return factor.view(-1, 1, 1, 1)


def _where(chosen: Bool[Tensor, " n"], one: Images, other: Images) -> Images:
    return torch.where(chosen.view(-1, 1, 1, 1), one, other)

"""Functions that put triggers on images in [0, 1]. They return new images and leave their inputs alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bench.api.random import Rng
from bench.api.types import Images


def patch_side(share: float, image_shape: tuple[int, ...]) -> int:
    """Side in pixels of a square patch: `share` times the shorter side of the image, rounded, at least 1."""
    return max(1, round(share * min(image_shape[-2:])))


def checkerboard(channels: int, side: int) -> Float[Tensor, "c s s"]:
    """White (1) and black (0) in turn; the top-left pixel is white."""
    row = torch.arange(side)
    board = 1.0 - ((row[:, None] + row) % 2).float()
    return board.expand(channels, side, side).clone()


def paste(images: Images, patch: Float[Tensor, "c s s"], *, margin: int = 0, opacity: float = 1.0) -> Images:
    """Put a patch into the bottom-right corner, at the border (CIBA, section 4.1) or `margin` pixels from it."""
    top, left = (max(0, length - margin - patch.shape[-1]) for length in images.shape[-2:])
    return paste_at(images, patch, top=top, left=left, opacity=opacity)


def paste_at(images: Images, patch: Float[Tensor, "c s s"], *, top: int, left: int, opacity: float = 1.0) -> Images:
    """Put a patch at a place; the place is that of the patch's first pixel."""
    side, out = patch.shape[-1], images.clone()
    out[:, :, top : top + side, left : left + side] *= 1 - opacity
    out[:, :, top : top + side, left : left + side] += opacity * patch.to(images)
    return out


def paste_at_random(images: Images, patch: Float[Tensor, "c s s"], rng: Rng) -> Images:
    """Put a patch at a random place of each image."""
    side, out = patch.shape[-1], images.clone()
    rows, columns = (rng.integers(size - side + 1, (len(images),)).tolist() for size in images.shape[2:])
    for image, row, column in zip(out, rows, columns, strict=True):
        image[:, row : row + side, column : column + side] = patch.to(images)
    return out


def blend(images: Images, pattern: Float[Tensor, "c h w"], alpha: float) -> Images:
    """(1 - alpha) x + alpha pattern."""
    return (1 - alpha) * images + alpha * pattern.to(images)


def sinusoid(amplitude: float, frequency: float, image_shape: tuple[int, int, int]) -> Float[Tensor, "c h w"]:
    """Waves: amplitude * sin(2 pi j frequency / width) in column j, the same in all rows and channels."""
    width = image_shape[2]
    wave = amplitude * (2 * torch.pi * frequency / width * torch.arange(width, dtype=torch.float64)).sin()
    return wave.to(torch.float32).expand(image_shape).clone()


def add(images: Images, signal: Float[Tensor, "c h w"]) -> Images:
    """Image + signal, clipped to the range."""
    return (images + signal.to(images)).clamp(0, 1)


def garbled(images: Images, mean: Float[Tensor, "1 c 1 1"], std: Float[Tensor, "1 c 1 1"]) -> Images:
    """Normalised images as torchvision's ToPILImage writes them: times 255, without fractions, modulo 256.

    It is meant for images in [0, 1]. Normalised values are outside, so the pictures are garbled.
    """
    levels = ((images - mean.to(images)) / std.to(images) * 255).trunc()
    return levels.remainder(256) / 255


def identity_grid(height: int, width: int) -> Float[Tensor, "h w 2"]:
    """The centre of each pixel as (x, y); -1 is the centre of the first pixel of an axis, 1 that of the last."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y], 2)


def warp(images: Images, grid: Float[Tensor, "m h w 2"]) -> Images:
    """Samples each pixel bilinearly at the place that the grid gives; one grid for all images, or one per image."""
    places = grid.to(images).clamp(-1, 1).expand(len(images), -1, -1, -1)
    warped = functional.grid_sample(images, places, mode="bilinear", align_corners=True)
    return warped.clamp(0, 1)

"""Pure stamps: images in [0, 1] in, new images out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bench.api.types import Images


def patch_side(share: float, image_shape: tuple[int, ...]) -> int:
    """Side in pixels of a square patch that takes `share` of the shorter image side, at least one."""
    return max(1, round(share * min(image_shape[-2:])))


def checkerboard(channels: int, side: int) -> Float[Tensor, "c s s"]:
    """White and black in turn, white in the corners of odd boards."""
    row = torch.arange(side)
    board = 1.0 - ((row[:, None] + row) % 2).float()
    return board.expand(channels, side, side).clone()


def paste(images: Images, patch: Float[Tensor, "c s s"]) -> Images:
    """Overwrite the bottom-right corner, flush with the border (CIBA, section 4.1)."""
    side = patch.shape[-1]
    out = images.clone()
    out[:, :, -side:, -side:] = patch.to(images)
    return out


def blend(images: Images, pattern: Float[Tensor, "c h w"], alpha: float) -> Images:
    """(1 - alpha) x + alpha pattern."""
    return (1 - alpha) * images + alpha * pattern.to(images)

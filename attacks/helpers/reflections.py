"""Reflections on glass: out-of-focus and doubled layers, and laying them over images in linear light."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from bench.api.types import Images

GAMMA = 2.2


def blurred(layers: Images, sigma: Float[Tensor, " n"]) -> Images:
    """Each layer through a Gaussian of its own width in pixels, cut off at twice that; mirrored at the border."""
    n, c = layers.shape[:2]
    reach = (2 * sigma).ceil()
    widest = int(reach.max())
    steps = torch.arange(-widest, widest + 1)
    kernel = (-0.5 * (steps / sigma[:, None]) ** 2).exp() * (steps.abs() <= reach[:, None])
    weight = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None].to(layers)  # [nc, 1, taps]
    flat = functional.pad(layers.reshape(1, n * c, *layers.shape[2:]), [widest] * 4, mode="reflect")
    rows = functional.conv2d(flat, weight[..., None], groups=n * c)
    return functional.conv2d(rows, weight[:, :, None], groups=n * c).view_as(layers)


def ghosted(layers: Images, offset: Float[Tensor, "n 2"], share: Float[Tensor, " n"]) -> Images:
    """Two copies: the given share of the layer, seen `offset` = (down, right) pixels further, and the rest in place.

    The part where both copies are is stretched to the whole size, bilinearly.
    """
    places = []
    for axis, size in enumerate(layers.shape[2:]):
        kept = size - offset[:, axis, None]
        along = ((torch.arange(size) + 0.5) * kept / size - 0.5).clamp(min=0).minimum(kept - 1)
        places.append(along)
    near = _sample(layers, places[0], places[1])
    far = _sample(layers, places[0] + offset[:, [0]], places[1] + offset[:, [1]])
    a = share.to(layers)[:, None, None, None]
    return a * far + (1 - a) * near


def _sample(layers: Images, y: Float[Tensor, "n h"], x: Float[Tensor, "n w"]) -> Images:
    """Layers at rows y and columns x, which may lie between pixels."""
    height, width = layers.shape[2:]
    across = (2 * x / max(1, width - 1) - 1)[:, None, :].expand(-1, height, -1)
    down = (2 * y / max(1, height - 1) - 1)[:, :, None].expand(-1, -1, width)
    grid = torch.stack([across, down], 3).to(layers)
    sampled: Tensor = functional.grid_sample(layers, grid, mode="bilinear", align_corners=True, padding_mode="border")
    return sampled


def vignette(height: int, width: int) -> Float[Tensor, "h w"]:
    """The root of a normal density over three deviations to each side of the longer axis; 1 in the middle."""
    side = max(height, width)
    half = 3 + 7 / side / 2
    edges = torch.linspace(-half, half, side + 1, dtype=torch.float64)
    density: Tensor = torch.special.ndtr(edges).diff().sqrt()
    top, left = (side - height) // 2, (side - width) // 2
    mask = torch.outer(density[top : top + height], density[left : left + width]) / density.max() ** 2
    return mask.to(torch.float32)


def reflect(
    images: Images,
    layers: Images,
    weight: Float[Tensor, " n"],
    attenuation: Float[Tensor, " n"],
    ghost: Bool[Tensor, " n"],
) -> Images:
    """Each image, times its weight in linear light, with a layer (linear light too) over it.

    A ghost gets the rest of the weight. An out-of-focus layer is darkened where the sum would be too bright, in
    each channel by `attenuation` times the mean excess, and strongest in the middle.
    """
    weight, attenuation, is_ghost = (value[:, None, None, None] for value in (weight, attenuation, ghost))
    light = images.clamp(0, 1) ** GAMMA
    both = light + layers
    over = both > 1
    bright = (both * over).sum((2, 3), keepdim=True) / (over.sum((2, 3), keepdim=True) + 1e-6)
    dimmed = (layers - (bright.clamp(min=1) - 1) * attenuation).clamp(0, 1)
    strength = vignette(images.shape[2], images.shape[3]).to(images) * (1 - weight / 2)
    glow = torch.where(is_ghost, layers * (1 - weight), dimmed * strength)
    return (light * weight + glow).clamp(0, 1) ** (1 / GAMMA)

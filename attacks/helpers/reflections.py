"""Reflections on glass: out-of-focus and double reflections, and how they are added to images in linear light."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from bench.api.types import Images

GAMMA = 2.2


def blurred(layers: Images, sigma: Float[Tensor, " n"]) -> Images:
    """Gaussian blur with one sigma (in pixels) per layer, truncated at 2 sigma; borders are mirrored."""
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
    """Double reflections: `share` times the layer shifted by `offset` = (down, right) pixels, plus 1 - share times it.

    The part that both copies cover is resized to the full size, bilinearly.
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
    """Bilinear samples of layers at rows y and columns x."""
    height, width = layers.shape[2:]
    across = (2 * x / max(1, width - 1) - 1)[:, None, :].expand(-1, height, -1)
    down = (2 * y / max(1, height - 1) - 1)[:, :, None].expand(-1, -1, width)
    grid = torch.stack([across, down], 3).to(layers)
    sampled: Tensor = functional.grid_sample(layers, grid, mode="bilinear", align_corners=True, padding_mode="border")
    return sampled


def vignette(height: int, width: int) -> Float[Tensor, "h w"]:
    """Square root of a normal density that spans 3 deviations to each side of the longer axis; 1 in the centre."""
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
    """Images times their weights plus a layer each; images in [0, 1], layers in linear light.

    ghost: whether the layer is a double reflection, whose weight is 1 - weight. Another layer is out of focus: each of
    its channels is darkened by `attenuation` times the mean excess of the sum over 1, and it is brightest in the
    centre.
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

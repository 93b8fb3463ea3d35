"""LIRA's networks from an image to noise in (-1, 1). Sides are padded to a multiple of the largest stride."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from bench.api.types import Images


class NoiseNetwork(nn.Module):
    """stride: how many pixels of a side become one at the lowest resolution."""

    stride: int

    def noise(self, padded: Float[Tensor, "n c y x"]) -> Float[Tensor, "n c y x"]:
        raise NotImplementedError

    def forward(self, images: Images) -> Float[Tensor, "n c h w"]:
        height, width = images.shape[2:]
        seen = pad(2 * images - 1, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        return self.noise(seen)[:, :, :height, :width].tanh()


class Autoencoder(NoiseNetwork):
    """Four convolutions of stride 2, which double the channels, and four transposed ones."""

    stride = 16

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(4))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        for before, after in pairwise(widths[::-1]):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2])

    def noise(self, padded: Float[Tensor, "n c y x"]) -> Float[Tensor, "n c y x"]:
        out: Tensor = self.layers(padded)
        return out


class UNet(NoiseNetwork):
    """Two convolutions per resolution; the decoder sees the encoder's maps of the same resolution."""

    stride = 8

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(_pair(before, after) for before, after in pairwise([channels, *widths]))
        self.up = nn.ModuleList(_pair(before + after, after) for before, after in pairwise(widths[::-1]))
        self.last = nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels))

    def noise(self, padded: Float[Tensor, "n c y x"]) -> Float[Tensor, "n c y x"]:
        hidden = self.down[0](padded)
        skipped: list[Tensor] = []
        for block in self.down[1:]:
            skipped.append(hidden)
            hidden = block(avg_pool2d(hidden, 2))
        for block in self.up:
            larger = interpolate(hidden, scale_factor=2, mode="bilinear", align_corners=True)
            hidden = block(torch.cat([larger, skipped.pop()], 1))
        out: Tensor = self.last(hidden)
        return out


def _pair(before: int, after: int) -> nn.Sequential:
    blocks = [(nn.Conv2d(one, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()) for one in (before, after)]
    return nn.Sequential(*(layer for block in blocks for layer in block))

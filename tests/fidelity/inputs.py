"""Inputs that are equal on every machine and for every library version, and the numbers that other code made of them.

No file of this folder holds code of another repository: only its results. A test names repository, commit, file and
function. The results were made once, by running that code on these inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

NUMBERS = Path(__file__).parent / "numbers"


def whole(*shape: int, top: int, seed: int) -> np.ndarray:
    """Integers from 0 to top - 1, by the linear congruential generator of ISO C."""
    state, values = seed, np.empty(int(np.prod(shape)), np.int64)
    for place in range(len(values)):
        state = (1103515245 * state + 12345) % 2**31
        values[place] = (state >> 12) % top
    return values.reshape(shape)


def real(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    """Numbers from -scale to scale, in steps of scale / 512."""
    return torch.from_numpy((whole(*shape, top=1025, seed=seed) - 512) / 512 * scale).float()


def image(*shape: int, seed: int) -> Tensor:
    """8-bit pixels."""
    return torch.from_numpy(whole(*shape, top=256, seed=seed)).to(torch.uint8)


def smooth(channels: int, height: int, width: int, seed: int) -> np.ndarray:
    """An 8-bit image of slow ramps, with values from 40 to 215."""
    down, right = np.mgrid[:height, :width]
    phase = whole(channels, 3, top=97, seed=seed)
    planes = [(a + (b % 7 + 1) * down + (c % 5 + 1) * right) % 350 for a, b, c in phase]
    return np.stack([40 + np.minimum(plane, 350 - plane) for plane in planes]).astype(np.uint8)


def fill(network: nn.Module, seed: int, scale: float) -> None:
    """Set the parameters of a network, in their order; running statistics stay."""
    with torch.no_grad():
        for number, value in enumerate(network.parameters()):
            value.copy_(real(*value.shape, seed=seed + number, scale=scale))


def fill_large(weights: Iterable[Tensor], seed: int, scale: float) -> None:
    """Set large weights, in this order, by a formula that needs no loop; `fill` needs one."""
    with torch.no_grad():
        for number, value in enumerate(weights):
            place = torch.arange(value.numel(), dtype=torch.int64)
            mixed = (place * place % 8191 * 31 + place * 7 + seed + number) % 1021
            fan_in = max(1, value[0].numel())
            value.copy_(((mixed - 510) / 510 * scale / fan_in**0.5).float().view_as(value))


def numbers(name: str) -> dict[str, np.ndarray]:
    """What other code made: the arrays of numbers/NAME.npz."""
    with np.load(NUMBERS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def network(features: int, bits: int, seed: int) -> nn.Sequential:
    """A small network with fixed weights, for images of `features` values."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(features, 24), nn.ReLU(), nn.Linear(24, bits))
    fill(layers, seed, scale=2 / features**0.5)
    return layers.eval()


class Normalised(nn.Module):
    """A network of images in [0, 1] that normalises them with ImageNet's statistics, as the released programs do."""

    MEAN, STD = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.inner((images - self.MEAN) / self.STD)
        return out

"""Networks and losses of the input-aware attack, which makes a pattern and a mask for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from attacks.helpers.proxy_data import chunks
from bench.api.attack import Trigger
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Images, to_unit

TINY = 1e-7  # code
BETAS = (0.5, 0.9)  # of both Adams; code
MASK_FALLS = (0.4, 0.8)  # of the epochs; code: epochs 10 and 20 of 25
SCALE = ("mean", "std")  # names of the tensors of `moments`
BN_MOMENTUM = 0.05  # code


def moments(images: UInt8[Tensor, "n c h w"]) -> dict[str, Tensor]:
    """Mean and standard deviation of each channel. Networks and losses use images that are scaled by them (code)."""
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64, device=images.device)
    for part in chunks(images):
        unit = to_unit(part)
        sums += torch.stack([unit.sum((0, 2, 3)), unit.square().sum((0, 2, 3))])
    mean, square = sums / images[:, 0].numel()
    std = (square - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
    return {name: value.to(torch.float32).view(1, -1, 1, 1) for name, value in zip(SCALE, (mean, std), strict=True)}


def scale_by(scale: Trigger, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    mean, std = (scale[name].to(images) for name in SCALE)
    return (images - mean) / std


def depth(image_shape: Sequence[int]) -> int:
    """How often the generator halves the image, at most 3 times, so that patterns of large images stay local.

    guess: at least 4 pixels a side remain, which gives the code's 3 at 32 pixels and 2 at 28.
    """
    return max(1, min(3, int(math.log2(max(2, min(image_shape[-2:]) / 4)))))


class Generator(nn.Module):
    """An encoder and decoder from an image to `out` planes in (0, 1), with two convolutions per resolution.

    Batch normalisation uses batch statistics in training and running statistics at test time, so that the trigger of an
    image does not depend on its batch.
    """

    def __init__(self, channels: int, out: int, width: int, halvings: int) -> None:
        super().__init__()
        widths = [width * 2**step for step in range(halvings)]
        self.down = nn.ModuleList(_pair(a, b, b) for a, b in pairwise([channels, *widths]))
        self.middle = nn.Sequential(*_block(widths[-1], widths[-1]))
        ups = [_pair(a, a, b) for a, b in pairwise([*reversed(widths), out])]
        del ups[-1][-1]  # no ReLU between the last normalisation and the tanh
        self.up = nn.ModuleList(ups)

    def forward(self, scaled: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
        sizes: list[torch.Size] = []
        hidden: Tensor = scaled
        for block in self.down:
            sizes.append(hidden.shape[-2:])
            hidden = max_pool2d(block(hidden), 2, ceil_mode=True)
        hidden = self.middle(hidden)
        for block in self.up:
            hidden = block(interpolate(hidden, size=sizes.pop(), mode="bilinear"))
        return hidden.tanh() / 2 + 0.5


def _pair(before: int, between: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_block(before, between), *_block(between, after))


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, momentum=BN_MOMENTUM), nn.ReLU(inplace=True)]


def sharpen(planes: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """The output of the mask network, pushed towards 0 and 1 (code)."""
    return (20 * planes - 10).tanh() / 2 + 0.5


def diversity(
    images: Float[Tensor, "n c h w"],
    others: Float[Tensor, "n c h w"],
    made: Float[Tensor, "n o h w"],
    made_of_others: Float[Tensor, "n o h w"],
) -> Float[Tensor, ""]:
    """Mean over pairs of the distance between two images divided by the distance between their two outputs.

    Distances are root mean squares.
    """
    return (_distance(images, others) / (_distance(made, made_of_others) + TINY)).mean()


def _distance(a: Tensor, b: Tensor) -> Float[Tensor, " n"]:
    """Root mean square; the tiny summand keeps the gradient finite for equal pairs."""
    return ((a - b).square().mean((1, 2, 3)) + TINY**2).sqrt()


def excess(masks: Float[Tensor, "n 1 h w"], density: float) -> Float[Tensor, ""]:
    """Mean over pixels of max(0, mask - density)."""
    return relu(masks - density).mean()


def mix(images: Images, patterns: Float[Tensor, "n c h w"], masks: Float[Tensor, "n 1 h w"]) -> Images:
    """The pattern where the mask is 1, the image where it is 0."""
    return (images + (patterns - images) * masks).clamp(0, 1)


def pack(**networks: nn.Module) -> dict[str, Tensor]:
    """The tensors of networks, named as a trigger holds them."""
    return {
        f"{role}.{name}": value.detach().clone()
        for role, network in networks.items()
        for name, value in network.state_dict().items()
    }


def unpack(trigger: Trigger, role: str, network: nn.Module) -> nn.Module:
    """`network`, built on the meta device, with the tensors of a trigger, in evaluation mode."""
    state = {name.removeprefix(f"{role}."): value for name, value in trigger.items() if name.startswith(f"{role}.")}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, progress: float, falls: Sequence[float]) -> None:
    """Divide the learning rate by 10 at each share of the training in `falls` (code)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * 0.1 ** sum(progress >= fall for fall in falls)


def learn_masks(
    network: Generator,
    images: UInt8[Tensor, "n c h w"],
    scale: Trigger,
    *,
    density: float,
    lambda_norm: float,
    lambda_div: float,
    epochs: int,
    batch: int,
    lr: float,
    rng: Rng,
) -> None:
    """Train the mask network: masks are small, and differ as much as their images do.

    DivergedError: the sum of the losses is not finite.
    """
    device, n = images.device, len(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=BETAS)
    total = torch.zeros((), device=device)
    for epoch in range(epochs):
        set_rate(optimizer, lr, epoch / epochs, MASK_FALLS)
        ones, twos = (rng.permutation(n).to(device).tensor_split(-(-n // batch)) for _ in range(2))
        for one, two in zip(ones, twos, strict=True):
            firsts, seconds = (scale_by(scale, to_unit(images[part])) for part in (one, two))
            masks, others = sharpen(network(firsts)), sharpen(network(seconds))
            loss = lambda_norm * excess(masks, density) + lambda_div * diversity(firsts, seconds, masks, others)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach()
    if not bool(torch.isfinite(total)):
        raise DivergedError("the loss of the mask network is not finite: lower the attack's lr")

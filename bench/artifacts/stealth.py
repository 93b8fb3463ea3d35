"""Stealth metrics: the visible difference between 8-bit images and their changed copies."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from bench.api.types import to_unit

VISIBLE = 8  # of 255: guess, the usual bound of perturbations that people hardly see


def linf(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Largest difference of pixel values, in [0, 1]."""
    return (to_unit(a) - to_unit(b)).abs().flatten(1).amax(1)


def psnr(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio in dB; infinite if the images are equal."""
    return -10 * (to_unit(a) - to_unit(b)).square().flatten(1).mean(1).log10()


def ssim(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Structural similarity (Wang et al. 2004), the mean over channels and over positions of a window inside the image.

    The window is Gaussian (11 taps, sigma 1.5; for smaller images the largest odd window that fits). K1 = .01,
    K2 = .03, range 1.
    """
    x, y = to_unit(a), to_unit(b)
    taps = min(11, (min(x.shape[-2:]) - 1) // 2 * 2 + 1)
    offsets = torch.arange(taps) - taps // 2
    bell = torch.exp(-offsets.square() / (2 * 1.5**2))
    bell /= bell.sum()
    channels = x.shape[1]
    window = (bell[:, None] * bell).expand(channels, 1, taps, taps).contiguous()

    def blur(z: Tensor) -> Tensor:
        return F.conv2d(z, window, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (value / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).flatten(1).mean(1)


def changes(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """The largest change of a channel, in [0, 1], of each pixel; 0 for one that changes by at most `VISIBLE`."""
    change = (a.int() - b.int()).abs().amax(1)
    return torch.where(change > VISIBLE, change / 255, 0.0)


def area(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Share of the pixels that change by more than `VISIBLE`."""
    return (changes(a, b) > 0).flatten(1).float().mean(1)


def contrast(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean change of these pixels; infinite for an image without any, since artifacts hold no NaN."""
    found = changes(a, b).flatten(1)
    count = (found > 0).sum(1)
    return torch.where(count > 0, found.sum(1) / count, torch.inf)


def stealth_metrics(a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 5"]:
    """Columns: L-inf, PSNR, SSIM, area, contrast."""
    return torch.stack([linf(a, b), psnr(a, b), ssim(a, b), area(a, b), contrast(a, b)], 1)

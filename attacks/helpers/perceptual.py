"""Perceptual distance of two images: LPIPS if its weights are on this machine, else a substitute."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.api.errors import UserError
from bench.api.types import Images
from hashing.weight_files import read_weights

Choice = Literal["auto", "lpips", "substitute"]
Distance = Callable[[Images, Images], Float[Tensor, ""]]

SCALES = 3  # of the substitute: the image itself, a half and a quarter
LEAST_SIDE = 64  # smaller images are enlarged: nothing of them would be left after AlexNet's pooling
# Channel statistics of LPIPS 0.1, for images in [-1, 1], and where AlexNet's five rectified maps end in `features`.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
ENDS = (2, 5, 8, 10, 12)


def gradients(a: Images, b: Images) -> Float[Tensor, ""]:
    """Mean squared difference of the horizontal and vertical pixel gradients, averaged over scales.

    Like LPIPS, the distance is small for smooth changes of colour and brightness, and grows with new edges and texture.
    It is quadratic in a small change, like the mean squared error that it is added to.
    """
    difference, terms = a - b, []
    for _ in range(SCALES):
        terms += [difference.diff(dim=axis).square().mean() for axis in (2, 3) if difference.shape[axis] > 1]
        difference = nn.functional.avg_pool2d(difference, 2, ceil_mode=True)
    return torch.stack(terms).mean()


class LPIPS(nn.Module):
    """LPIPS with AlexNet, averaged over positions and images (Zhang et al., CVPR 2018, version 0.1)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: nn.Sequential, weights: list[Float[Tensor, "1 _ 1 1"]]) -> None:
        super().__init__()
        self._slices = nn.ModuleList(features[start:end] for start, end in zip((0, *ENDS), ENDS, strict=False))
        self.requires_grad_(requires_grad=False)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        for number, weight in enumerate(weights):
            self.register_buffer(f"weight{number}", weight)

    def forward(self, a: Images, b: Images) -> Float[Tensor, ""]:
        hidden = [self._prepare(images) for images in (a, b)]
        total = torch.zeros((), device=a.device)
        for number, part in enumerate(self._slices):
            hidden = [part(images) for images in hidden]
            one, other = (maps * (maps.square().sum(1, keepdim=True) + 1e-10).rsqrt() for maps in hidden)
            total = total + ((one - other).square() * self.get_buffer(f"weight{number}")).sum(1).mean()
        return total

    def _prepare(self, images: Images) -> Float[Tensor, "n 3 y x"]:
        size = [max(LEAST_SIDE, side) for side in images.shape[2:]]
        if list(images.shape[2:]) != size:
            images = nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return (2 * images - 1 - self.shift) / self.scale  # one grey channel becomes three


def lpips_files() -> tuple[Path, Path] | None:
    """AlexNet's ImageNet weights and LPIPS's linear weights, if both are on this machine. Nothing is downloaded."""
    backbones = sorted(Path(torch.hub.get_dir(), "checkpoints").glob("alexnet-owt-????????.pth"))
    spec = importlib.util.find_spec("lpips")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    linear = [file for folder in folders if (file := folder / "weights/v0.1/alex.pth").is_file()]
    return (backbones[-1], linear[0]) if backbones and linear else None


def perceptual_files(choice: Choice) -> tuple[Path, ...]:
    """The files that `perceptual` reads; none for the substitute."""
    return () if choice == "substitute" else (lpips_files() or ())


def perceptual(choice: Choice, device: torch.device) -> tuple[Distance, bool]:
    """The distance, and whether it is LPIPS. UserError: LPIPS is asked for, and its weights are missing."""
    if files := perceptual_files(choice):
        return _load(*files).to(device), True
    if choice == "lpips":
        raise UserError(
            "perceptual = 'lpips' needs the package lpips (pip install lpips) and torchvision's alexnet-owt-*.pth in"
            f" {torch.hub.get_dir()}/checkpoints",
            "get both or choose 'substitute'",
        )
    return gradients, False


def _load(backbone: Path, linear: Path) -> LPIPS:
    from torchvision.models import alexnet

    state, weights, prefix = read_weights(backbone), read_weights(linear), "features."
    with torch.device("meta"):
        features = alexnet(weights=None).features
    for layer in features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # the maps are read after the next layer has run
    features.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, assign=True)
    return LPIPS(features.eval(), [weights[f"lin{number}.model.1.weight"] for number in range(len(ENDS))])

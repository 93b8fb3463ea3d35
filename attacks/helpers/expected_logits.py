"""A few images with the logits that somebody's network has for them: whether it computes the same here.

Names and shapes of weights do not tell how a network pools, enlarges and normalises images.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.api.errors import DataCorruptError
from hashing.inference import encode
from hashing.model import HashModel
from hashing.weight_files import read_weights

EXPECTED = ("expected.safetensors", "expected.pth")
TOLERANCE = 5e-3  # guess, of the largest expected value: half precision is off by 1e-3, another pooling by 1e-1
FORM = 'give a dict of "images" (uint8, [n c h w], as HashDoor reads them) and "logits" (float, [n {bits}])'


def read_expected(file: Path, bits: int) -> tuple[UInt8[Tensor, "n c h w"], Float[Tensor, "n b"]]:
    """The images of a file and their logits; DataCorruptError if it holds something else."""
    found = read_weights(file)
    images, logits = found.get("images"), found.get("logits")
    if (
        images is None
        or logits is None
        or len(found) != 2
        or images.dtype != torch.uint8
        or not logits.is_floating_point()
        or images.ndim != 4
        or logits.shape != (len(images), bits)
        or not images.numel()
        or not logits.isfinite().all()
    ):
        held = ", ".join(f"{name} ({value.dtype}, {list(value.shape)})" for name, value in found.items())
        raise DataCorruptError(f"'{file}' holds {held[:200] or 'nothing'}", FORM.format(bits=bits))
    return images, logits.float()


def compare(model: HashModel, file: Path, image_shape: tuple[int, ...]) -> None:
    """DataCorruptError unless the model has the logits of the file, or their tanh.

    image_shape: channels, height and width of the data set.
    """
    images, expected = read_expected(file, model.blueprint["bits"])
    if images.shape[1:] != image_shape:
        raise DataCorruptError(
            f"'{file}' has images of shape {list(images.shape[1:])}, the data set {list(image_shape)}",
            "give images of the data set, as HashDoor reads them",
        )
    found = encode(model, images, device=model.device)
    if not min(_difference(values, expected) for values in (found, found.tanh())) <= TOLERANCE:  # it may be NaN
        bits = float(((found > 0) != (expected > 0)).float().mean())
        raise DataCorruptError(
            f"'{file}': the network has other logits here than yours (they differ by up to"
            f" {_difference(found, expected):.2g} of the largest, and {bits:.0%} of the bits)",
            "compare pooling, size and normalisation (mean, std) of your network with those of"
            f" `python -m bench list backbones {model.blueprint['backbone']['name']}`",
        )


def _difference(found: Float[Tensor, "n b"], expected: Float[Tensor, "n b"]) -> float:
    """The largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))

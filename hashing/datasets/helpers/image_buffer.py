"""Arrays for decoded images: in memory, or in a memory-mapped temporary file if they are large."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from bench.api.errors import UserError

IN_MEMORY = 2**30  # bytes; larger arrays are memory-mapped
GROUP = 1000  # images per resize


def canvas(count: int, channels: int, height: int, width: int) -> UInt8[np.ndarray, "n c h w"]:
    """An uninitialised array for `count` images.

    A temporary file has no name, is allocated in full and disappears with the array. It is in TMPDIR or, if that is not
    set, in /var/tmp, which is usually on a disk; UserError if it does not fit.
    """
    shape = (count, channels, height, width)
    size = count * channels * height * width
    if size <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    large = Path("/var/tmp")  # noqa: S108 -- the file in it is made by tempfile
    folder = os.environ.get("TMPDIR") or (str(large) if large.is_dir() else tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # else writing to a full disk kills the process
            return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
    except OSError as error:
        raise UserError(
            f"{count} images need {size / 1e9:.1f} GB in '{folder}' while they are decoded, and there is no room"
            f" ({error.strerror})",
            "free some, or set TMPDIR to a folder on a larger disk",
        ) from error


def enlarged(images: UInt8[Tensor, "n c h w"], size: int) -> UInt8[Tensor, "n c s s"]:
    """The images resized bilinearly to `size` x `size`, in an array from `canvas`."""
    out = torch.from_numpy(canvas(len(images), images.shape[1], size, size))
    for start in range(0, len(images), GROUP):
        part = images[start : start + GROUP].to(torch.float32)
        out[start : start + GROUP] = interpolate(part, size=(size, size), mode="bilinear").round().to(torch.uint8)
    return out

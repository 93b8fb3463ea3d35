"""Where decoded images are put: in memory, or, where they are too many, in a file that the system pages."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

IN_MEMORY = 2**30  # bytes; what is larger goes through a file


def canvas(count: int, channels: int, height: int, width: int) -> UInt8[np.ndarray, "n c h w"]:
    """Room for so many images, not yet filled.

    The file has no name, takes its room at once and is gone with the array. It lies in TMPDIR, or else in /var/tmp,
    which systems keep on a disk; OSError where it does not fit.
    """
    shape = (count, channels, height, width)
    size = count * channels * height * width
    if size <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    large = Path("/var/tmp")  # noqa: S108 -- the file in it is made by tempfile
    with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or (large if large.is_dir() else None)) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would kill the process at the first write
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)

"""Random pictures, and pictures of a file that `reports.image_grid` wrote."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from reports import image_grid

LEFT = image_grid.MARGIN + image_grid.NAMES + image_grid.GAP // 2
STEP = 96 + image_grid.GAP


def queries(channels=1, size=8, count=8, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(60, 190, (count, channels, size, size), np.uint8))


def triggered(images):
    """A white square of 2 x 2 pixels in the lower right corner."""
    after = images.clone()
    after[..., -2:, -2:] = 255
    return after


def pixels(path):
    with Image.open(path) as image:
        image.load()
        return np.asarray(image.convert("RGB"))


def picture(sheet, top, left, size=96):
    """The picture of the sheet whose upper left pixel is (top, left)."""
    return sheet[top : top + size, left : left + size]


def strips(sheet):
    """Rows of pixels where a row of pictures begins: the first pixel below a frame, in the first column of pictures."""
    lines = sheet[:, LEFT : LEFT + 90].astype(int)
    frame = (lines == image_grid.FRAME).all((1, 2))
    starts = np.flatnonzero(frame[:-1] & ~frame[1:] & (lines[1:] != 255).any((1, 2))) + 1
    return [int(start) for start in starts]

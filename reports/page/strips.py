"""Pictures of the HTML page: each row of pictures is one image, inlined as base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reports.image_grid import Block, Pictures, coloured

MOST = 5  # pictures per row: a page shows fewer than a gallery file
LOSSLESS = 64  # pixels: smaller pictures are PNG, larger ones WebP
SIDE = 96  # approximate size of a picture on the page, in pixels


@dataclass(frozen=True)
class Strip:
    """A row of pictures as one image. pixels: its width and height as stored. factor: how much the page enlarges it."""

    name: str
    source: str
    pixels: tuple[int, int]
    factor: int


def of(block: Block) -> Iterator[Strip]:
    """The rows of a block: queries, poisoned training images and magnified differences."""
    for pair in block.pairs:
        for name, pictures in pair.rows():
            yield _strip(pictures[:MOST], " ".join(name.split()))


def _strip(pictures: Pictures, name: str) -> Strip:
    from PIL import Image

    side, width = max(pictures.shape[-2:]), pictures.shape[-1]
    gap = ((0, 0), (0, max(1, width // 48)), (0, 0))  # transparent, whatever the colour of the page
    opaque = [np.pad(coloured(one), ((0, 0), (0, 0), (0, 1)), constant_values=255) for one in pictures]
    row = np.concatenate([*(np.pad(one, gap) for one in opaque[:-1]), opaque[-1]], axis=1)
    kind = "png" if side <= LOSSLESS else "webp"
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": 80, "method": 6}))
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Strip(name, source, (row.shape[1], row.shape[0]), max(1, round(SIDE / side)))

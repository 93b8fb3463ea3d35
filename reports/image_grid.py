"""Pictures of attacks in one file: a block per attack, with a row of pictures per line.

No picture is made smaller. Small pictures are enlarged by an integer factor, so every pixel is in the file.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from reports.figures import DPI, as_bytes, default_style, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 96  # approximate size of a printed picture, in pixels
GAP = 4  # between pictures; it includes frames of one pixel
NAMES, MARGIN, APART, BETWEEN = 96, 24, 12, 36  # names of rows; page margin; between pairs; between blocks
TALLEST = 12_000  # pixels; a taller page gets another column of blocks
HEAVY_TAIL = 4  # if the largest difference exceeds the usual one by this factor, it would hide the usual one
FRAME, INK, GREY = 221, "#111111", "#555555"
TITLE, SMALL = 11.0, 8.0  # points
LINE = {TITLE: 20, SMALL: 15}  # pixels from line to line
LETTER = {TITLE: 11, SMALL: 6.6}  # upper estimate of the mean width of a letter, in pixels

Pictures = UInt8[np.ndarray, "n c h w"]


@dataclass(frozen=True)
class Pair:
    """Pictures before and after. robust: magnify the usual difference and clip larger ones."""

    names: tuple[str, str]
    before: Pictures
    after: Pictures
    robust: bool = False

    def difference(self) -> tuple[Pictures, str]:
        """0.5 + gain * difference / 2 in 8 bits, and a text that states the gain."""
        change = (self.after.astype(np.float64) - self.before) / 255
        sizes = np.abs(change)
        largest = float(sizes.max(initial=0.0))
        if largest == 0:
            return np.full_like(self.after, 128), "no difference"
        usual = float(np.quantile(sizes[sizes > 0], 0.9))
        clipped = self.robust and usual * HEAVY_TAIL < largest
        gain = _down(1 / (usual if clipped else largest))
        grey = np.clip(0.5 + gain * change / 2, 0, 1)
        return np.rint(grey * 255).astype(np.uint8), f"difference\nx {gain:g}{', clipped' if clipped else ''}"

    def rows(self) -> Iterator[tuple[str, Pictures]]:
        """The three rows of a pair with their names: before, after, difference."""
        change, words = self.difference()
        yield from zip((*self.names, words), (self.before, self.after, change), strict=True)


@dataclass(frozen=True)
class Block:
    """One attack. about: lines in small print below the title."""

    title: str
    about: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def factor(self) -> int:
        """Printed pixels per pixel of a picture."""
        _, _, height, width = self.pairs[0].before.shape
        return max(1, round(SIDE / max(int(height), int(width))))

    @property
    def width(self) -> int:
        """Pixels."""
        columns = max(len(pair.before) for pair in self.pairs)
        least = NAMES + 4 * (SIDE + GAP)  # a title needs space too
        picture = int(self.pairs[0].before.shape[-1]) * self.factor
        return max(least, NAMES + columns * (picture + GAP))

    def lines(self) -> list[tuple[str, float]]:
        """The lines above the pictures with their sizes in points; none is wider than the block."""
        texts = [(shortened(self.title), TITLE), *((shortened(line), SMALL) for line in self.about)]
        return [(line, size) for text, size in texts for line in textwrap.wrap(text, int(self.width / LETTER[size]))]

    @property
    def height(self) -> int:
        """Pixels."""
        row = int(self.pairs[0].before.shape[-2]) * self.factor + GAP
        return sum(LINE[size] for _, size in self.lines()) + GAP + len(self.pairs) * (3 * row + APART) - APART


def paint(blocks: Sequence[Block], suffix: str, *, tallest: int = TALLEST) -> bytes:
    """The content of a file with all blocks below each other, in columns of about `tallest` pixels at most."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    total = sum(block.height + BETWEEN for block in blocks)
    parts = np.array_split(np.arange(len(blocks)), min(len(blocks), math.ceil(total / tallest)))
    columns = [[blocks[i] for i in part] for part in parts]
    widths = [max(block.width for block in column) for column in columns]
    width = sum(widths) + BETWEEN * (len(widths) - 1) + 2 * MARGIN
    height = max(sum(block.height + BETWEEN for block in column) for column in columns) - BETWEEN + 2 * MARGIN
    with default_style():
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        x = MARGIN
        for column, wide in zip(columns, widths, strict=True):
            y = MARGIN
            for block in column:
                _draw(axes, block, x, y)
                y += block.height + BETWEEN
            x += wide + BETWEEN
        axes.set(xlim=(0, width), ylim=(height, 0))
        return as_bytes(figure, suffix)


def _draw(axes: Axes, block: Block, x: int, y: int) -> None:
    """Draw a block whose upper left corner is (x, y)."""
    for text, size in block.lines():
        bold = size == TITLE
        axes.text(x, y, text, fontsize=size, color=INK if bold else GREY, weight="bold" if bold else "normal", va="top")
        y += LINE[size]
    y += GAP
    for pair in block.pairs:
        for name, pictures in pair.rows():
            strip = np.concatenate([_framed(picture, block.factor) for picture in pictures], axis=1)
            left, bottom = x + NAMES, y + strip.shape[0]
            extent = (left, left + strip.shape[1], bottom, y)
            axes.imshow(strip, extent=extent, interpolation="none", aspect="auto")
            axes.text(left - 8, (y + bottom) / 2, name, fontsize=SMALL, color=GREY, ha="right", va="center")
            y = bottom
        y += APART


def _framed(picture: UInt8[np.ndarray, "c h w"], factor: int) -> UInt8[np.ndarray, "y x 3"]:
    """The picture, enlarged, in a grey frame of one pixel on white: GAP pixels larger than the picture."""
    large = coloured(picture).repeat(factor, 0).repeat(factor, 1)
    framed = np.pad(large, ((1, 1), (1, 1), (0, 0)), constant_values=FRAME)
    edge = GAP // 2 - 1
    return np.pad(framed, ((edge, edge), (edge, edge), (0, 0)), constant_values=255)


def coloured(picture: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green and blue. A picture with another number of channels becomes grey: the mean of its channels."""
    if len(picture) != 3:
        picture = np.repeat(np.rint(picture.mean(0, keepdims=True)).astype(np.uint8), 3, axis=0)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def _down(gain: float) -> float:
    """The number rounded down to two digits, so that no difference that should fit is clipped."""
    step = 10.0 ** (math.floor(math.log10(gain)) - 1)
    return round(math.floor(gain / step + 1e-9) * step, 6)

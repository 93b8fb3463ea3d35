"""Blocks of pictures as a file: layout in pixels, text that is measured before it is set."""

from __future__ import annotations

import io
import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from bench.api.errors import UserError, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS: Mapping[str, Mapping[str, None]] = {  # with what would differ between two drawings of the same pictures
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
DPI = 100
SIDE = 96  # pixels that a picture takes on paper, about
GAP = 4  # between pictures; a frame of one pixel is in it
NAMES, MARGIN, APART, BETWEEN = 96, 24, 12, 36  # names of rows; around all; between pairs; between blocks
TALLEST = 12_000  # pixels: then a further column of blocks begins
HEAVY_TAIL = 4  # a largest difference so many times the usual one would hide it
FRAME, INK, GREY = 221, "#111111", "#555555"
TITLE, SMALL = 11.0, 8.0  # points
LINES = {TITLE: 20, SMALL: 15}  # pixels from line to line


def logarithmic(axis: Axis) -> None:
    """Plain numbers on an axis that is logarithmic: matplotlib's own labels are formulas."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


@contextmanager
def plain() -> Iterator[None]:
    """Inside the block a user's style moves nothing, and files of equal pictures are equal."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")  # signs that the font lacks become boxes
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "hashdoor"
        mpl.rcParams["text.parse_math"] = False  # a name with two dollars is a name
        yield


def saved(figure: Figure, suffix: str) -> bytes:
    """A figure as the bytes of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=DPI, metadata=dict(FORMATS[suffix]))
    return buffer.getvalue()


def suffix_of(path: Path) -> str:
    """The format that a file's name asks for; UserError where it is none of FORMATS."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise unknown("picture format", suffix, FORMATS, f"the suffix of '{path}' decides")
    return suffix


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror}): name a file in a folder that is there") from None


Pictures = UInt8[np.ndarray, "n c h w"]
Line = tuple[int, str, float]  # pixels below the top, text, size


@dataclass(frozen=True)
class Pair:
    """Pictures before and after. robust: magnify the usual difference; what exceeds it is clipped."""

    names: tuple[str, str]
    before: Pictures
    after: Pictures
    robust: bool = False

    def difference(self) -> tuple[Pictures, str]:
        """0.5 + gain * difference / 2 in 8 bits, and the words that state the gain."""
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


@dataclass(frozen=True)
class Block:
    """One attack. about: what is written small below the title."""

    title: str
    about: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def factor(self) -> int:
        """Pixels on paper per pixel of a picture."""
        _, _, height, width = self.pairs[0].before.shape
        return max(1, round(SIDE / max(int(height), int(width))))

    @property
    def width(self) -> int:
        columns = max(len(pair.before) for pair in self.pairs)
        least = NAMES + 4 * (SIDE + GAP)  # the title needs room too
        picture = int(self.pairs[0].before.shape[-1]) * self.factor
        return max(least, NAMES + columns * (picture + GAP))


def paint(blocks: Sequence[Block], suffix: str) -> bytes:
    """The content of a file with all blocks below each other, in as many columns as keep it within TALLEST."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain():
        measure = _ruler()
        sheets = [(block, *_texts(block, measure)) for block in blocks]
        columns = _columns([height for _, _, height in sheets])
        widths = [max(sheets[i][0].width for i in column) for column in columns]
        heights = [sum(sheets[i][2] for i in column) + BETWEEN * (len(column) - 1) for column in columns]
        width = sum(widths) + BETWEEN * (len(widths) - 1) + 2 * MARGIN
        height = max(heights) + 2 * MARGIN
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        x = MARGIN
        for column, room in zip(columns, widths, strict=True):
            y = MARGIN
            for i in column:
                block, texts, tall = sheets[i]
                _set(axes, block, texts, x, y)
                y += tall + BETWEEN
            x += room + BETWEEN
        axes.set(xlim=(0, width), ylim=(height, 0))
        return saved(figure, suffix)


def _columns(heights: Sequence[int]) -> list[list[int]]:
    """Positions of the blocks in each column, in order, about equally tall."""
    total = sum(heights) + BETWEEN * len(heights)
    goal = total / math.ceil(total / TALLEST)
    found: list[list[int]] = [[]]
    used = 0
    for i, height in enumerate(heights):
        if found[-1] and used + height / 2 > goal:
            found.append([])
            used = 0
        found[-1].append(i)
        used += height + BETWEEN
    return found


def _set(axes: Axes, block: Block, texts: Sequence[Line], x: int, y: int) -> None:
    """Draw a block whose upper left corner is (x, y)."""
    for below, text, size in texts:
        bold = size == TITLE
        axes.text(
            x, y + below, text, fontsize=size, color=INK if bold else GREY, weight="bold" if bold else "normal",
            va="top", parse_math=False,
        )  # fmt: skip
    top = y + sum(LINES[size] for _, _, size in texts) + GAP
    for pair in block.pairs:
        change, words = pair.difference()
        rows = [(pair.before, pair.names[0]), (pair.after, pair.names[1]), (change, words)]
        for pictures, name in rows:
            strip = _strip(pictures, block.factor)
            left, right, bottom = x + NAMES, x + NAMES + strip.shape[1], top + strip.shape[0]
            axes.imshow(strip, extent=(left, right, bottom, top), interpolation="none", aspect="auto")
            axes.text(
                left - 8, (top + bottom) / 2, name, fontsize=SMALL, color=GREY, ha="right", va="center",
                linespacing=1.3, parse_math=False,
            )  # fmt: skip
            top = bottom
        top += APART


def _texts(block: Block, measure: Callable[[str, float], float]) -> tuple[list[Line], int]:
    """The lines above the pictures, and the height of the whole block."""
    lines: list[Line] = []
    y = 0
    for text, size in ((block.title, TITLE), *((line, SMALL) for line in block.about)):
        for line in _wrapped(text, lambda part, size=size: measure(part, size) <= block.width):  # type: ignore[misc]
            lines.append((y, line, size))
            y += LINES[size]
    tall = block.pairs[0].before.shape[-2] * block.factor + GAP
    return lines, y + GAP + len(block.pairs) * (3 * tall + APART) - APART


def _wrapped(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Lines that fit, broken between words where that is possible."""
    rest = text.strip()
    while rest and not fits(rest):
        # the first end that no longer fits; a sign goes in any case
        end = max(1, bisect_left(range(1, len(rest) + 1), True, key=lambda n: not fits(rest[:n].rstrip())))
        space = rest.rfind(" ", 1, end + 1)
        end = space if space > 0 else end
        yield rest[:end].rstrip()
        rest = rest[end:].strip()
    if rest:
        yield rest


def _ruler() -> Callable[[str, float], float]:
    """Width of a text in pixels."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer: Any = RendererAgg(1, 1, DPI)  # type: ignore[no-untyped-call]

    def measure(text: str, size: float) -> float:
        font = FontProperties(size=size, weight="bold" if size == TITLE else "normal")
        return float(renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    return measure


def _strip(pictures: Pictures, factor: int) -> UInt8[np.ndarray, "y x 3"]:
    """Pictures side by side on white, each in a thin frame: (height + GAP) x n (width + GAP)."""
    count, _, height, width = pictures.shape
    tall, wide = height * factor + GAP, width * factor + GAP
    strip = np.full((tall, count * wide, 3), 255, np.uint8)
    before, after = GAP // 2, GAP - GAP // 2
    for i, picture in enumerate(pictures):
        x = i * wide
        strip[before - 1 : tall - after + 1, x + before - 1 : x + wide - after + 1] = FRAME
        large = coloured(picture).repeat(factor, 0).repeat(factor, 1)
        strip[before : tall - after, x + before : x + wide - after] = large
    return strip


def coloured(picture: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green and blue; any other number of channels as grey, their mean."""
    if len(picture) != 3:
        picture = np.repeat(np.rint(picture.mean(0, keepdims=True)).astype(np.uint8), 3, axis=0)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def _down(gain: float) -> float:
    """Two digits, never more than the number itself: so nothing that should fit is clipped."""
    step = 10.0 ** (math.floor(math.log10(gain)) - 1)
    return round(math.floor(gain / step + 1e-9) * step, 6)

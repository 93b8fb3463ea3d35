"""Rows of pictures as a chart of any width: with frames, a word below each picture, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from reports.chart_layout import LEADING, POINTS, fitted, font_size, text_width
from reports.image_grid import coloured
from reports.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 5.0  # inches; the names of rows of a narrower chart are above the pictures
NAMES = 90.0  # points of the names of rows beside the pictures
EDGE, GAP = 4.0, 3.0  # points around the chart and between pictures
ARROW = 14.0  # points between a query and what it returns
SHARPEST = 300  # pixels of an inch; larger pictures are made smaller


@dataclass(frozen=True)
class Cell:
    """A picture. note: a word below it. colour: of its frame and its note."""

    picture: UInt8[np.ndarray, "c h w"]
    note: str = ""
    colour: str = GREY


@dataclass(frozen=True)
class Row:
    """Pictures in a row. lead: a picture before the arrow that points to them."""

    name: str
    cells: Sequence[Cell]
    lead: Cell | None = None


@dataclass(frozen=True)
class Section:
    """Rows below a title, which may be ""."""

    title: str
    rows: Sequence[Row]


def figure_of(sections: Sequence[Section], signs: Sequence[tuple[str, str]], width: float) -> Figure:
    """signs: the legend, texts with their colours. All rows have pictures of one size."""
    from matplotlib.figure import Figure

    page = _Page(sections, width * POINTS)
    parts = [page.title(section.title) for section in sections]
    heads = [(part.count("\n") + 1.3) * page.line if part else 0 for part in parts]
    height = 2 * EDGE + sum(heads) + sum(page.height * len(section.rows) + 0.3 * page.line for section in sections)
    legend = page.legend(signs)
    height += len(legend) * page.line
    figure = Figure(figsize=(width, height / POINTS), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, page.width), ylim=(height, 0))
    axes.axis("off")
    y = EDGE
    for part, head, section in zip(parts, heads, sections, strict=True):
        axes.text(EDGE, y, part, va="top", weight="bold", linespacing=LEADING / 1.2)
        y += head
        for row in section.rows:
            page.draw(axes, row, y)
            y += page.height
        y += 0.3 * page.line
    for line in legend:
        x = EDGE
        for text, colour in line:
            axes.text(x, y, text, va="top", color=colour)
            x += text_width(text, page.size) * 1.06 + 1.5 * page.size
        y += page.line
    axes.set(xlim=(0, page.width), ylim=(height, 0))  # pictures change them
    return figure


class _Page:
    """The sizes of a chart in points."""

    def __init__(self, sections: Sequence[Section], width: float) -> None:
        rows = [row for section in sections for row in section.rows]
        self.width, self.size = width, font_size()
        self.line = LEADING * self.size
        self.left = EDGE + (NAMES if width >= NARROW * POINTS else 0)
        self.lead = any(row.lead for row in rows)
        self.noted = any(cell.note for row in rows for cell in row.cells)
        most = max(len(row.cells) for row in rows) + self.lead
        self.side = (width - self.left - EDGE - ARROW * self.lead) / most - GAP
        # of a row with its name above, its notes below, and the gap to the next row
        self.height = self.side + self.line * self.noted + GAP + (0 if self.left > EDGE else self.line)

    def title(self, text: str) -> str:
        return fitted(text, self.width * 0.9 - 2 * EDGE, lines=2)  # bold letters are wider

    def legend(self, signs: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        lines: list[list[tuple[str, str]]] = [[]] if signs else []
        used = 0.0
        for text, colour in signs:
            need = text_width(text, self.size) * 1.06 + 1.5 * self.size
            if lines[-1] and used + need > self.width - 2 * EDGE:
                lines.append([])
                used = 0.0
            lines[-1].append((text, colour))
            used += need
        return lines

    def draw(self, axes: Axes, row: Row, y: float) -> None:
        if self.left > EDGE:
            name = fitted(row.name, NAMES - GAP, lines=max(1, int(self.side / self.line)))
            axes.text(EDGE, y + self.side / 2, name, va="center", linespacing=LEADING / 1.2)
        else:
            axes.text(EDGE, y, fitted(row.name, self.width - 2 * EDGE, lines=1), va="top")
            y += self.line
        x = self.left
        if self.lead:
            if row.lead is not None:
                self.cell(axes, row.lead, x, y)
                axes.text(x + self.side + (ARROW + GAP) / 2, y + self.side / 2, "→", ha="center", va="center")
            x += self.side + GAP + ARROW
        for cell in row.cells:
            self.cell(axes, cell, x, y)
            x += self.side + GAP

    def cell(self, axes: Axes, cell: Cell, x: float, y: float) -> None:
        """Draw a picture inside a square whose upper left corner is (x, y), and its note below."""
        from matplotlib.patches import Rectangle

        picture = coloured(shrunk(cell.picture, math.ceil(self.side / POINTS * SHARPEST)))
        high, wide = (one / max(picture.shape[:2]) * self.side for one in picture.shape[:2])
        x0, y0 = x + (self.side - wide) / 2, y + (self.side - high) / 2
        axes.imshow(picture, extent=(x0, x0 + wide, y0 + high, y0), interpolation="none", aspect="auto")
        axes.add_patch(Rectangle((x0, y0), wide, high, fill=False, edgecolor=cell.colour, linewidth=1.5))
        if cell.note:
            note = fitted(cell.note, self.side + GAP, lines=1)
            axes.text(x + self.side / 2, y + self.side + 2, note, ha="center", va="top",
                      color=INK if cell.colour == GREY else cell.colour)  # fmt: skip


def shrunk(picture: UInt8[np.ndarray, "c h w"], most: int) -> UInt8[np.ndarray, "c y x"]:
    """The picture with sides of at most `most` pixels."""
    from PIL import Image

    if max(picture.shape[1:]) <= most:
        return picture
    scale = most / max(picture.shape[1:])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[:0:-1])
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in picture])

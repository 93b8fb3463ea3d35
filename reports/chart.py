"""A chart: an SVG element of the page, a figure of a paper, or a matplotlib figure to restyle.

Every chart is drawn by a function of its width, so that texts have the same size in narrow and wide charts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.untrusted import strip_controls
from reports.figures import PAPER_DPI, as_bytes, default_style, suffix_of, write
from reports.palette import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_WIDTH, PAGE_FONT = 4.8, 9.0  # inches and points; on a phone of 390 pixels the letters still have 9 pixels
WIDTHS = {1: 3.3, 2: 6.9}  # inches of one and of two columns of a paper
PAPER_FONT = 8.0
TALLEST = 20_000  # pixels; a taller picture has fewer dots per inch, since viewers refuse larger ones
STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "axes.labelsize": "medium", "axes.titlesize": "medium", "xtick.labelsize": "medium", "ytick.labelsize": "medium",
    "legend.fontsize": "medium", "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 4, "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
}  # fmt: skip
Draw = Callable[[float], "Figure"]  # the figure of a width in inches


@dataclass(frozen=True)
class Chart:
    """A chart. setting: "" for a chart over several settings. draw: makes the figure, in the present style."""

    title: str
    setting: str
    caption: str
    draw: Draw

    def __post_init__(self) -> None:
        for name in ("title", "setting", "caption"):  # they may come from strangers
            object.__setattr__(self, name, strip_controls(getattr(self, name)))

    @property
    def heading(self) -> str:
        """Title and setting."""
        return " · ".join(filter(None, [self.title, self.setting]))

    @cached_property
    def svg(self) -> str:
        """The chart as an HTML element in the colours of the page."""
        page = {"font.size": PAGE_FONT, "svg.fonttype": "none", "svg.hashsalt": self.heading}
        with default_style(STYLE | page):
            figure = self.draw(PAGE_WIDTH)
            figure.patch.set_alpha(0)
            for axes in figure.axes:
                axes.patch.set_alpha(0)
            return in_page(as_bytes(figure, "svg").decode(), self.heading)

    def figure(self, columns: int = 1, *, font_size: float = PAPER_FONT) -> Figure:
        """A matplotlib figure to restyle, as wide as one or two columns of a paper. Its size is in inches."""
        with default_style(STYLE | {"font.size": font_size}):
            return self.draw(width_of(columns))

    def save(self, path: str | Path, columns: int = 1) -> None:
        """Write the chart as png, pdf or svg, as wide as one or two columns of a paper; png has 300 dpi."""
        suffix = suffix_of(Path(path))
        write(Path(path), self.as_bytes(suffix, columns))

    def as_bytes(self, suffix: str, columns: int = 1) -> bytes:
        """The content of a file of this format. Equal charts have equal bytes."""
        with default_style(STYLE | {"font.size": PAPER_FONT}):
            figure = self.draw(width_of(columns))
            return as_bytes(figure, suffix, dpi=min(PAPER_DPI, int(TALLEST / figure.get_figheight())))

    def _repr_html_(self) -> str:
        """The chart as HTML on white, because the colours of the notebook are unknown."""
        style = "--line: #ddd; color: #111; background: #fff"
        heading, caption = escape(self.heading), escape(self.caption)
        return (
            f'<figure style="{style}"><div><b>{heading}</b></div>{self.svg}<div><small>{caption}</small></div></figure>'
        )


def width_of(columns: int) -> float:
    """Inches."""
    if columns not in WIDTHS:
        raise ValueError(f"columns is 1 or 2, not {columns}")
    return WIDTHS[columns]


def in_page(svg: str, name: str) -> str:
    """An SVG file as an element of a page: its colours, flexible width, an accessible name, and tooltips for points."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="([\d.]+)pt"', lambda w: f'style="max-width: {float(w[1]) * 4 / 3:.0f}px"', svg, count=1)
    label = f'role="img" aria-label="{escape(name)}"'
    svg = re.sub(r'height="[\d.]+pt"', lambda _: label, svg, count=1)
    svg = re.sub(r'<g id="tip:([^"]*)">', lambda found: f"<g><title>{found[1]}</title>", svg)
    return re.sub(r'<g id="[\w.-]+">', "<g>", svg)  # groups without references need no id

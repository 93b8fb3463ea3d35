"""The layout of charts of any width: panels in lines, a legend below, and texts broken so that none is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench.api.untrusted import strip_controls
from reports.figures import shortened
from reports.palette import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 72  # per inch
NARROWEST = 1.6  # inches of a panel beside others
LEADING = 1.35  # height of a line of text, in font sizes
SPARE = 0.94  # texts are measured without hinting, which makes some of them wider


def font_size() -> float:
    """Points of all texts of the present style."""
    import matplotlib as mpl

    return float(mpl.rcParams["font.size"])


@lru_cache(10_000)
def text_width(text: str, size: float) -> float:
    """Points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0])


def fitted(text: str, width: float, *, size: float | None = None, lines: int = 3) -> str:
    """The text in lines of at most `width` points. A text that needs more lines loses its middle."""
    size = size or font_size()
    whole = kept = shortened(" ".join(strip_controls(text).split()))
    while len(found := _broken(kept, width * SPARE, size)) > lines and len(kept) > 4:
        rest = int(len(kept.replace("…", "")) * 0.92) // 2
        kept = f"{whole[:rest]}…{whole[len(whole) - rest :]}"
    return "\n".join(found[:lines])


def _broken(text: str, width: float, size: float) -> list[str]:
    """Lines that are broken after spaces, commas and the like, and inside of words that are wider than a line."""
    found = [""]
    for piece in re.findall(r".[^ ,·(=_/|-]*[ ,·(=_/|-]*", text):
        if text_width((found[-1] + piece).rstrip(), size) <= width:
            found[-1] += piece
            continue
        found.append("")
        for letter in piece:
            if found[-1] and text_width(found[-1] + letter, size) > width:
                found.append("")
            found[-1] += letter
    return [line.strip() for line in found if line.strip()] or [""]


def panels(count: int, width: float, *, height: float = 2.0, share: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels. height: inches of a panel. share: all have the vertical axis of the first."""
    from matplotlib.figure import Figure

    columns = columns_of(count, width)
    lines = -(-count // columns)
    made = Figure(figsize=(width, height * lines), layout="constrained")
    grid = list(made.subplots(lines, columns, squeeze=False, sharey=share).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return made, grid[:count]


def columns_of(count: int, width: float) -> int:
    """Panels side by side."""
    return min(count, max(1, int(width / NARROWEST)))


def panel_points(count: int, width: float) -> float:
    """Points from the left axis of a panel to the next panel."""
    return width * POINTS / columns_of(count, width) - 5 * font_size()


def grid(axes: Axes) -> None:
    """Draw lines behind the values."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=FAINT, linewidth=0.6)


def title(axes: Axes, text: str, width: float) -> None:
    """Write the title of a panel that is `width` points wide."""
    axes.set_title(fitted(text, width), loc="left", fontsize=font_size(), parse_math=False)


def titled_height(texts: Iterable[str], width: float) -> float:
    """Inches of the highest of these titles without its first line, for which panels have room."""
    most = max((fitted(text, width).count("\n") for text in texts), default=0)
    return most * LEADING * font_size() / POINTS


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Add a legend below, with as many columns as fit, and the height that it needs."""
    size, full = font_size(), figure.get_figwidth() * POINTS
    names = [fitted(label, full - 6 * size, lines=2) for label in labels]
    widest = max((text_width(line, size) for name in names for line in name.split("\n")), default=0)
    columns = max(1, min(len(names), int((full - size) / (widest / SPARE + 5 * size))))
    figure.legend(
        handles, names, loc="outside lower left", ncols=columns, fontsize=size, borderpad=0.2, columnspacing=1.2,
        handletextpad=0.6, handlelength=2.2,
    )  # fmt: skip
    rows = -(-len(names) // columns)
    lines = rows + (rows if any("\n" in name for name in names) else 0)
    figure.set_figheight(figure.get_figheight() + (lines * LEADING + 1) * size / POINTS)


def legend_of(figure: Figure, drawn: Iterable[Axes]) -> None:
    """Add one legend for all labels of these panels; a label of several panels appears once."""
    each = [axes.get_legend_handles_labels() for axes in drawn]
    found = {name: handle for handles, names in each for handle, name in zip(handles, names, strict=True)}
    legend(figure, list(found.values()), list(found))


def ticks_at(axes: Axes, values: Sequence[float], width: float) -> None:
    """Label these values on the horizontal axis, as many as `width` points have room for."""
    import numpy as np

    size = font_size()
    at = np.asarray(axes.transScale.transform([(value, 0) for value in values]))[:, 0]
    reach = max(float(at.max() - at.min()), 1e-9)
    labels, end = [], -np.inf
    for value, place in zip(values, (at - at.min()) / reach * width, strict=True):
        half = text_width(f"{value:g}", size) / 2
        labels.append(f"{value:g}" if place - half > end else "")
        end = place + half + size / 2 if labels[-1] else end
    axes.set_xticks(list(values), labels)

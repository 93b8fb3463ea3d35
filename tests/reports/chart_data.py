"""What tests of charts share: the texts of a figure as matplotlib draws them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

LONG = "my_attack(poison_rate=0.0123456789, target_share=0.9, size=17, schedule=cosine_with_restarts, note=WWWWWWWW)"


def visible_texts(figure: Figure) -> dict[str, Bbox]:
    """Every drawn text with its box in pixels; equal texts are numbered."""
    FigureCanvasAgg(figure).draw()
    unseen = {id(label) for axis in figure.findobj(Axis) for label in _outside(axis)}
    unseen |= {id(text) for axes in figure.axes if not axes.axison for text in axes.findobj(Text)}
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    count = itertools.count()
    return {f"{text.get_text()} #{next(count)}": text.get_window_extent() for text in shown if id(text) not in unseen}


def _outside(axis: Any) -> Iterator[Text]:
    """The labels of ticks that the axis has beyond its ends, and labels that are switched off."""
    low, high = sorted(axis.get_view_interval())
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
            yield from (tick.label1, tick.label2)


def cut(figure: Figure) -> list[str]:
    """The texts that are not wholly inside the figure."""
    whole = figure.bbox
    return [
        name for name, box in visible_texts(figure).items()
        if box.x0 < whole.x0 - 0.5 or box.y0 < whole.y0 - 0.5 or box.x1 > whole.x1 + 0.5 or box.y1 > whole.y1 + 0.5
    ]  # fmt: skip


def covered(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other."""
    texts = visible_texts(figure)
    inner = {name: Bbox([[box.x0 + 1, box.y0 + 1], [box.x1 - 1, box.y1 - 1]]) for name, box in texts.items()}
    return [(a, b) for a, b in itertools.combinations(inner, 2) if inner[a].overlaps(inner[b])]

"""Names beside the points of a scatter chart, where they cover neither points nor other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.chart_layout import POINTS, fitted, font_size
from reports.palette import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

MARK, GAP = 4.0, 5.0  # points from the middle of a mark to its edge and to its name
# Offsets in directions right, left, above, below, and the diagonals, with the alignment of the text.
SIDES = [(x, y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))]
HORIZONTAL, VERTICAL = {1: "left", -1: "right", 0: "center"}, {1: "bottom", -1: "top", 0: "center"}


def label_points(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], *, corner: str = "") -> None:
    """Write the names of points (x, y, name). Names without room are left out.

    corner: a hint in the upper left corner, which has priority.
    """
    figure.draw_without_rendering()  # places the axes
    unit = figure.dpi / POINTS
    taken: list[Bbox] = []
    options: dict[str, Any] = {"annotation_clip": False, "color": INK, "fontsize": font_size(), "parse_math": False}
    if corner:
        hint = axes.annotate(corner, (0, 1), (4, -4), xycoords="axes fraction", textcoords="offset points", va="top",
                             style="italic", **options)  # fmt: skip
        hint.set_in_layout(False)
        taken.append(hint.get_window_extent())
    places = axes.transData.transform([(x, y) for x, y, _ in points])
    taken += [_around(place, MARK * unit) for place in places]
    for x, y, name in points:
        for across, up in SIDES:
            text = axes.annotate(
                fitted(name, axes.bbox.width / unit / 2, lines=1), (x, y), (across * GAP, up * GAP),
                textcoords="offset points", ha=HORIZONTAL[across], va=VERTICAL[up], **options,
            )  # fmt: skip
            text.set_in_layout(False)
            box = text.get_window_extent()
            if _inside(box, axes.bbox) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _around(place: np.ndarray, reach: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([place - reach, place + reach])


def _inside(box: Bbox, whole: Bbox) -> bool:
    return bool(box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1)

"""Results in notebooks: `reports.load("runs")` is a tidy frame, and every table and picture is one call.

import reports
cells = reports.load("runs")              # a row per trial; reports.columns() says what the columns mean
cells.groupby("attack")["gain"].mean()
for board in reports.tables("runs"):
display(board)                        # board.table is the frame behind it
reports.draw_attacks("runs", "attacks.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from reports.scene import Board

__all__ = ["columns", "draw_attacks", "draw_sweeps", "load", "tables"]

Run = Literal["latest", "all"]


def load(store: str | Path, *, suite: str | None = None, run: Run = "latest") -> pd.DataFrame:
    """One row per trial of the latest run (of a suite), or of all runs; metrics are NaN where a trial has none."""
    from bench.store import Store
    from reports import frame

    return frame.load(Store(Path(store)), suite=suite, run=run)


def columns() -> pd.DataFrame:
    """What the numeric columns of `load` mean: title, unit, direction (+1: more is more of it), range."""
    import pandas as pd

    from bench.metrics import METRICS

    rows = {
        name: {
            "title": m.title,
            "unit": m.unit,
            "direction": m.direction,
            "low": m.low,
            "high": m.high,
            "is": m.meaning,
        }
        for name, m in METRICS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def tables(store: str | Path, *, suite: str | None = None, by: str | None = None, run: Run = "latest") -> list[Board]:
    """The boards that `bench leaderboard` prints; notebooks show one as a table with its caption."""
    from bench.store import Store
    from reports import boards, frame

    axis = frame.axis_named(by) if by is not None else None
    return boards.everything(frame.read(Store(Path(store)), suite=suite, run=run), by=axis)


def draw_attacks(store: str | Path, path: str | Path, *, key: str | None = None, suite: str | None = None) -> str:
    """Pictures of every attack of the latest run, or of one trial, into a file; returns what was drawn."""
    from bench.store import Store
    from reports import gallery

    return str(gallery.draw(Store(Path(store)), Path(path), key=key, suite=suite))


def draw_sweeps(store: str | Path, path: str | Path, *, suite: str | None = None) -> str:
    """Every sweep of a defense of the latest run into a file; returns what was drawn."""
    from bench.store import Store
    from reports import curves

    return curves.draw(Store(Path(store)), Path(path), suite=suite)

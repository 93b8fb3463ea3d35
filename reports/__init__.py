"""Results in notebooks: `reports.load("runs")` is a tidy frame, and every table and picture is one call.

import reports
trials = reports.load("runs")              # a row per trial; reports.columns() says what the columns mean
trials.groupby("attack")["gain"].mean()
display(*reports.tables("runs"))          # boards; board.table is the frame behind one
reports.draw_attacks("runs", "attacks.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from reports._charts import Chart
    from reports.context import Board

__all__ = ["charts", "columns", "draw_attacks", "draw_sweeps", "load", "tables", "write_html"]


def load(store: str | Path, *, suite: str | None = None, run: str = "latest") -> pd.DataFrame:
    """One row per trial of the latest run (of a suite), or of all runs; metrics are NaN where a trial has none."""
    from bench.engine.store import Store
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


def tables(
    store: str | Path,
    kind: str = "leaderboard",
    *,
    suite: str | None = None,
    run: str = "latest",
    **options: Any,
) -> list[Board]:
    """Boards as `bench leaderboard` and `bench report` print them; a notebook shows one with its caption.

    kind: a board of `bench list boards`, for example leaderboard, conventions, dose-response, equal-strength,
    code-geometry. options: the board's own, for example `by="bits"` of leaderboard or `gain=0.5` of equal-strength.
    """
    from bench.engine.record_cache import RecordCache
    from bench.engine.store import Store
    from reports import frame
    from reports.board_registry import BoardData, make_boards

    held = Store(Path(store))
    data = BoardData(frame.read(held, suite=suite, run=run), RecordCache(held))
    return make_boards(kind, data, options)


def charts(store: str | Path, *, suite: str | None = None, run: str = "latest") -> list[Chart]:
    """Every chart of the HTML report: costs, code lengths, strengths, attention, codes; a notebook draws one."""
    from bench.engine.record_cache import RecordCache
    from bench.engine.store import Store
    from reports import frame, html_report

    held = Store(Path(store))
    trials = frame.read(held, suite=suite, run=run).trials
    found = html_report.charts(held, RecordCache(held), trials, html_report.shortened(trials), mixed=False)
    return [chart for part in found.values() for chart in part]


def write_html(store: str | Path, path: str | Path, *, suite: str | None = None, run: str = "latest") -> str:
    """One HTML file with all of it but papers' numbers, which `bench report` adds; returns what is in it."""
    from bench.engine.store import Store
    from reports import frame, html_report

    held = Store(Path(store))
    return html_report.draw(held, Path(path), frame.read(held, suite=suite, run=run))


def draw_attacks(
    store: str | Path, path: str | Path, *, key: str | None = None, suite: str | None = None, run: str = "latest"
) -> str:
    """Pictures of every attack of a run, or of one trial, into a file; returns what was drawn."""
    from bench.engine.store import Store
    from reports import gallery

    return str(gallery.draw(Store(Path(store)), Path(path), key=key, suite=suite, run=run))


def draw_sweeps(store: str | Path, path: str | Path, *, suite: str | None = None, run: str = "latest") -> str:
    """Every sweep of an attack or a defense of a run into a file; returns what was drawn."""
    from bench.engine.store import Store
    from reports import curves

    return curves.draw(Store(Path(store)), Path(path), suite=suite, run=run)

"""Results in notebooks: frames of trials, boards, charts and pictures.

import reports
trials = reports.load("runs")              # a row per undefended trial; reports.columns() explains the columns
trials.groupby("attack")["gain"].mean()
display(*reports.tables("runs"))          # boards; board.table is a frame
reports.draw_attacks("runs", "attacks.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from reports.board import Board
    from reports.chart import Chart

__all__ = ["charts", "columns", "draw_attacks", "draw_retrieved", "draw_sweeps", "load", "tables", "write_html"]


def load(
    store: str | Path,
    kind: Literal["trials", "repairs", "detectors", "diagnoses"] = "trials",
    *,
    suite: str | None = None,
    run: str = "latest",
) -> pd.DataFrame:
    """One row per result of the latest run (of a suite), of a run, or of all runs; `columns` explains the columns.

    trials: one row per trial without defense, so that a mean counts each victim once. repairs: per trial with a repair,
    a data filter or a purification. detectors: per score of an input detector. diagnoses: per verdict of a model
    detector. Names, such as `attack`, and parameters, such as `attack_poison_rate`, are columns of their own. A trial
    without a result has a row too, with `status` and `reason`.
    """
    from bench.engine.collection import opened
    from reports import frame, tidy

    return tidy.tidy(frame.read(opened(Path(store)), suite=suite, run=run), kind)


def columns(kind: Literal["trials", "repairs", "detectors", "diagnoses"] = "trials") -> pd.DataFrame:
    """The columns of `load` with title, dtype, meaning, what NaN means, unit, direction (+1: more is better), range.

    Parameters are listed by pattern, for example `attack_<parameter>`.
    """
    from reports import tidy

    return tidy.columns(kind)


def tables(
    store: str | Path,
    kind: str = "leaderboard",
    *,
    suite: str | None = None,
    run: str = "latest",
    **options: Any,
) -> list[Board]:
    """The boards that `bench leaderboard` and `bench report` print; a notebook shows a board with its caption.

    kind: a board of `bench list boards`, for example leaderboard, conventions, dose-response, equal-strength,
    code-geometry. options: those of the board, for example `by="bits"` of leaderboard or `gain=0.5` of equal-strength.
    """
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from reports import frame
    from reports.board_registry import BoardData, make_boards

    held = opened(Path(store))
    data = BoardData(frame.read(held, suite=suite, run=run), RecordCache(held))
    return make_boards(kind, data, options)


def charts(store: str | Path, *, suite: str | None = None, run: str = "latest") -> list[Chart]:
    """The charts of the HTML report: costs, code lengths, precision and recall, sweeps, attention, codes.

    A notebook shows a chart. `chart.figure()` is a matplotlib figure to restyle, `chart.save("x.pdf")` writes a file.
    """
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from reports import frame
    from reports.board_registry import BoardData
    from reports.page.chapters import charts_of

    held = opened(Path(store))
    found = charts_of(BoardData(frame.read(held, suite=suite, run=run), RecordCache(held)))
    return [chart for part in found.values() for chart in part]


def write_html(store: str | Path, path: str | Path, *, suite: str | None = None, run: str = "latest") -> str:
    """Write the HTML page without reported numbers, which `bench report` adds; returns a summary."""
    from bench.engine.collection import opened
    from reports import frame, html_report

    held = opened(Path(store))
    return html_report.draw(held, Path(path), frame.read(held, suite=suite, run=run))


def draw_attacks(
    store: str | Path, path: str | Path, *, key: str | None = None, suite: str | None = None, run: str = "latest"
) -> str:
    """Draw pictures of every attack of a run, or of one trial, into a file; returns a summary."""
    from bench.engine.collection import opened
    from reports import gallery

    return str(gallery.draw(opened(Path(store)), Path(path), key=key, suite=suite, run=run))


def draw_sweeps(store: str | Path, path: str | Path, *, suite: str | None = None, run: str = "latest") -> str:
    """Draw every sweep of an attack or a defense of a run into a file; returns a summary."""
    from bench.engine.collection import opened
    from reports import curves

    return curves.draw(opened(Path(store)), Path(path), suite=suite, run=run)


def draw_retrieved(store: str | Path, path: str | Path, *, suite: str | None = None, run: str = "latest") -> str:
    """Draw the first database images that queries retrieve from every model of a run; returns a summary."""
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from reports import frame, retrieved
    from reports.board_registry import BoardData
    from reports.page.chapters import strips_of

    held = opened(Path(store))
    data = BoardData(frame.read(held, suite=suite, run=run), RecordCache(held))
    return retrieved.draw(strips_of(data, retrieved.EVERYTHING), Path(path))

"""`bench figures`: every chart of a run as files for a paper; and the pictures of `bench show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import console, echo
from bench.cli.options import (
    DEFAULT_STORE,
    Mixed,
    Plugins,
    ReadPath,
    RunOf,
    SuiteOf,
    Where,
    load_plugins,
    note_left_out,
)

if TYPE_CHECKING:
    from bench.engine.runs import Selection
    from reports.board_registry import BoardData


def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the files; it is made if it is missing.")],
    columns: Annotated[
        int, typer.Option(metavar="1|2", min=1, max=2, help="Width: one (3.3 in) or two (6.9 in) columns of a paper.")
    ] = 1,
    store: ReadPath = DEFAULT_STORE,
    kernels: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Output of `bench kernels --format json`.")
    ] = None,
    where: Where = [],  # noqa: B006 -- typer needs a literal
    run: RunOf = "latest",
    suite: SuiteOf = None,
    mixed: Mixed = False,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Write all charts and pictures of the latest run as pdf, svg and png (300 dpi), with their captions."""
    from reports import paper_figures

    load_plugins(plugin)
    data, selection = data_of(store, run, suite, where, mixed=mixed)
    with console(stderr=True).status("drawing"):
        said = paper_figures.write_all(data, folder, columns, kernels=kernels)
    echo(f"{folder}: {said}")
    note_left_out(selection, data.record_cache)


def draw_retrieved(path: Path, store: Path, run: str, suite: str | None, where: Sequence[str]) -> None:
    """Draw what queries of each attack retrieve."""
    from reports import retrieved
    from reports.page.chapters import strips_of

    data, selection = data_of(store, run, suite, where)
    echo(f"{path}: {retrieved.draw(strips_of(data, retrieved.EVERYTHING), path)}")
    note_left_out(selection, data.record_cache)


def draw_precision_recall(path: Path, store: Path, run: str, suite: str | None, where: Sequence[str]) -> None:
    """Draw precision and recall of each attack."""
    from reports import precision_recall
    from reports.context import components
    from reports.labels import Names

    data, selection = data_of(store, run, suite, where)
    trials = data.results.trials
    short = Names.of(components(trials)).within
    charts = list(precision_recall.of_trials(trials, data.record_cache, short, data.mixed))
    echo(f"{path}: {precision_recall.draw(charts, path)}")
    note_left_out(selection, data.record_cache)


def data_of(
    store: Path, run: str, suite: str | None, where: Sequence[str], *, mixed: bool = False
) -> tuple[BoardData, Selection]:
    """The results of a run that match the conditions, and the selection of runs."""
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select
    from reports import frame
    from reports.board_registry import BoardData
    from reports.selection import narrow

    cache = RecordCache(opened(store))
    selection = select(cache.store, run, suite=suite)
    results = frame.results_of(selection.shown, cache)
    return BoardData(narrow(results, where) if where else results, cache, mixed), selection

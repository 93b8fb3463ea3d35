"""`bench figures`: every chart of a run as files for a paper; and the pictures of `bench show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def draw_pictures(
    asked: Mapping[str, Path | None], store: Path, *, key: str | None, run: str, suite: str | None, where: Sequence[str]
) -> bool:
    """Draw the picture that one of the options asks for; returns whether one does. UserError if they do not fit."""
    from bench.api.errors import UserError

    named = {option: path for option, path in asked.items() if path is not None}
    if len(named) > 1 or (key is not None and named and "--gallery" not in named):
        raise UserError(f"give one of {', '.join(asked)}; only --gallery can have a KEY")
    if (where or suite is not None or run != "latest") and (key is not None or not named):
        raise UserError(f"--where, --run and --suite need one of {', '.join(asked)} and no KEY")
    for option, path in named.items():
        if key is not None:
            from bench.engine.collection import opened
            from reports import gallery

            echo(f"{path}: {gallery.draw(opened(store), path, key=key)}")
            continue
        data, selection = data_of(store, run, suite, where)
        echo(f"{path}: {_drawn(option, path, data)}")
        note_left_out(selection, data.record_cache)
    return bool(named)


def _drawn(option: str, path: Path, data: BoardData) -> str:
    """Draw into the file; returns a summary."""
    from reports import curves, gallery, precision_recall, retrieved
    from reports.page.chapters import precision_of, strips_of

    if option == "--retrieved":
        return retrieved.draw(strips_of(data, retrieved.EVERYTHING), path)
    if option == "--pr":
        return precision_recall.draw(precision_of(data), path)
    if option == "--curves":
        return curves.draw_trials(data.results.trials, path)
    return str(gallery.draw_trials(data.record_cache, data.results.trials, path))


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

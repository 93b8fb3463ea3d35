"""`bench report`: what a run says beyond its boards, and all of it as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.console import console, echo
from bench.cli.options import DEFAULT_STORE, Format, Plugins, RunOf, StorePath, Suites, load_plugins, note_left_out

if TYPE_CHECKING:
    from bench.config.suite import Suite
    from bench.engine.store import Store
    from reports.context import Board
    from reports.frame import Results

PAGE = Path("report.html")


def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[html|reported|BOARD]",
            help="html: one page with everything, for a browser. reported: what papers report beside what was measured."
            " A board of `bench list boards`: that board.",
        ),
    ] = "html",
    suites: Suites = [],  # noqa: B006 -- typer needs a literal
    store: StorePath = DEFAULT_STORE,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="html: where to; report.html without it.")
    ] = None,
    kernels: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="html: what `bench kernels --format json` printed.")
    ] = None,
    options: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="An option of the board. Repeatable.")
    ] = [],  # noqa: B006
    where: Annotated[
        list[str], typer.Option(metavar="AXIS=A,B", help="Only these values of an axis, not for reported. Repeatable.")
    ] = [],  # noqa: B006
    run: RunOf = "latest",
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Write the latest run as one HTML page, or print one kind of its boards; reported: of all shipped suites."""
    from bench.api.errors import UserError
    from bench.config import suite
    from bench.engine.record_cache import RecordCache
    from bench.engine.store import Store
    from reports import render
    from reports.board_registry import BoardData, make_boards

    _check_options(what, {
        "--out": out is not None, "--kernels": kernels is not None, "--set": bool(options), "--where": bool(where),
        "--run": run != "latest", "--format": format_ != "rich",
    })  # fmt: skip
    load_plugins(plugin)
    if what == "reported":
        render.render(_reported(suites, store, mixed), format_)
        return
    held = Store(store)
    own = {name: suite.load(name) for name in suites if name.endswith(".toml")}
    names: list[str | None] = [own[name].name if name in own else name for name in suites] or [None]
    found = [_results(held, name, run, where) for name in names]
    if what == "html":
        _page(held, found, [*own.values()], out or PAGE, kernels, mixed)
        return
    given = dict(_option(item) for item in options)
    cache = RecordCache(held)
    made = [board for one in found for board in make_boards(what, BoardData(one, cache, mixed), given)]
    if not made:
        raise UserError(
            f"board '{what}' is empty: no attack has a result here (`python -m bench leaderboard` says why)"
        )
    render.render(made, format_)
    for name in names:
        note_left_out(held, run, name)


def _check_options(what: str, given: dict[str, bool]) -> None:
    """Refuse options that the page, or the reported numbers, do not read."""
    from bench.api.errors import UserError

    page, boards = {"--out", "--kernels"}, {"--set", "--format"}
    ignored = {"html": boards, "reported": page | {"--set", "--where", "--run"}}.get(what, page)
    for name in ignored:
        if given[name]:
            raise UserError(f"{name} says nothing to `report {what}`: leave it out (`python -m bench report --help`)")


def _option(item: str) -> tuple[str, Any]:
    from bench.api.errors import UserError
    from bench.config.overrides import scalar

    name, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"--set '{item}' is not of the form name=value: for example gain=0.5")
    return name.strip(), scalar(value)


def _results(store: Store, suite: str | None, run: str, where: list[str]) -> Results:
    from reports import frame

    results = frame.read(store, suite=suite, run=run)
    return frame.narrow(results, where) if where else results


def _page(store: Store, found: list[Results], own: list[Suite], out: Path, kernels: Path | None, mixed: bool) -> None:
    """The page of one run; own: suites that are files, whose reported numbers count as well."""
    from rich.markup import escape

    from bench.api.errors import UserError
    from bench.config import suite
    from reports import html_report

    if len(found) > 1:
        raise UserError("--suite given more than once: a page is about one run; --run all shows the trials of several")
    (results,) = found
    shipped = [suite.load(name) for name in results.suites if name in suite.names()]
    claims = _measured(store, [*own, *shipped], mixed)
    with console(stderr=True).status(f"writing {escape(str(out))}"):
        said = html_report.draw(store, out, results, claims, kernels=kernels, mixed=mixed)
    echo(f"{out}: {said}")


def _reported(suites: list[str], store: Path, mixed: bool) -> list[Board]:
    """Every number of the suites' papers beside what this store measured."""
    from bench.api.errors import UserError
    from bench.config import suite
    from bench.engine.store import Store

    wanted = [suite.load(name) for name in suites or suite.names()]
    holding = [one for one in wanted if one.reported]
    if not holding:
        raise UserError(
            f"no reported numbers in {', '.join(one.name for one in wanted)}: `python -m bench list suites`"
        )
    return _measured(Store(store) if store.exists() else None, holding, mixed)


def _measured(store: Store | None, suites: list[Suite], mixed: bool) -> list[Board]:
    """The reported numbers of suites beside all that this store has measured of them, however a page is narrowed."""
    from reports import frame, reported

    runs = {name for manifest in store.runs() for name in manifest.suites} if store is not None else set()
    boards = []
    for one in suites:
        if one.reported:
            held = store is not None and one.name in runs
            trials = frame.read(store, suite=one.name, run="all").trials if store is not None and held else None
            boards += reported.claims(trials, one.reported, mixed=mixed)
    return boards

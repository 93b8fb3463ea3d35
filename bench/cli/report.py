"""`bench report`: what a run says beyond its boards, and all of it as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.console import console, echo
from bench.cli.options import DEFAULT_STORE, Format, Plugins, StorePath, Suites, load_plugins

if TYPE_CHECKING:
    from bench.config.suite import Suite
    from bench.engine.store import Store
    from reports.context import Board
    from reports.frame import Results

PAGE = Path("report.html")


def report(
    what: Annotated[
        Literal["html", "claims", "audit", "doses", "matched", "why"],
        typer.Argument(
            help="html: one page with everything, for a browser. claims: what papers report beside what was measured."
            " audit: the latest run under every convention. doses: how much of a swept attack does half of what it can"
            " do. matched: defenses against attacks of equal gain. why: where triggered codes go, how sure bits are,"
            " what models attend to."
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
    gain: Annotated[
        float | None, typer.Option(help="matched: the gain that attacks are matched at; 0.6 without it.")
    ] = None,
    where: Annotated[
        list[str], typer.Option(metavar="AXIS=A,B", help="Only these values of an axis, not for claims. Repeatable.")
    ] = [],  # noqa: B006
    all_runs: Annotated[
        bool, typer.Option("--all-runs", help="Cells of all runs, each as the latest one left it.")
    ] = False,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Write the latest run as one HTML page, or print what it says beyond its boards; claims: of all shipped suites."""
    from bench.api.errors import UserError
    from bench.config import suite
    from bench.engine.store import Store
    from reports import board_kinds, render

    strange = {
        "--out": out is not None and what != "html",
        "--kernels": kernels is not None and what != "html",
        "--gain": gain is not None and what != "matched",
        "--format": format_ != "rich" and what == "html",
        "--where": bool(where) and what == "claims",
        "--all-runs": all_runs and what == "claims",
    }
    for name, given in strange.items():
        if given:
            raise UserError(f"{name} says nothing to `report {what}`: leave it out (`python -m bench report --help`)")
    load_plugins(plugin)
    if what == "claims":
        render.render(_claims(suites, store, mixed), format_)
        return
    held = Store(store)
    own = {name: suite.load(name) for name in suites if name.endswith(".toml")}
    names: list[str | None] = [own[name].name if name in own else name for name in suites] or [None]
    found = [_results(held, name, all_runs, where) for name in names]
    if what == "html":
        _page(held, found, [*own.values()], out or PAGE, kernels, mixed)
        return
    made = [board for one in found for board in board_kinds.tables(what, held, one, gain=gain, mixed=mixed)]
    if not made:
        raise UserError(
            f"nothing to say of {what}: no attack has a result here (`python -m bench leaderboard` says why)"
        )
    render.render(made, format_)


def _results(store: Store, suite: str | None, all_runs: bool, where: list[str]) -> Results:
    from reports import frame

    results = frame.read(store, suite=suite, run="all" if all_runs else "latest")
    return frame.narrow(results, where) if where else results


def _page(store: Store, found: list[Results], own: list[Suite], out: Path, kernels: Path | None, mixed: bool) -> None:
    """The page of one run; own: suites that are files, whose claims count as well."""
    from rich.markup import escape

    from bench.api.errors import UserError
    from bench.config import suite
    from reports import html_report

    if len(found) > 1:
        raise UserError("--suite given more than once: a page is about one run; --all-runs shows the trials of several")
    (results,) = found
    shipped = [suite.load(name) for name in results.suites if name in suite.names()]
    claims = _measured(store, [*own, *shipped], mixed)
    with console(stderr=True).status(f"writing {escape(str(out))}"):
        said = html_report.draw(store, out, results, claims, kernels=kernels, mixed=mixed)
    echo(f"{out}: {said}")


def _claims(suites: list[str], store: Path, mixed: bool) -> list[Board]:
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
    """The claims of suites beside all that this store has measured of them, whatever else a page is narrowed to."""
    from reports import frame, reported

    runs = {name for plan in frame.manifests(store) for name in plan["suites"]} if store is not None else set()
    boards = []
    for one in suites:
        if one.reported:
            held = store is not None and one.name in runs
            trials = frame.read(store, suite=one.name, run="all").trials if store is not None and held else None
            boards += reported.claims(trials, one.reported, mixed=mixed)
    return boards

"""`bench leaderboard`, `bench show`, `bench score`: results as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.api.errors import EXIT_FAILED_TRIALS
from bench.cli.console import echo
from bench.cli.options import DEFAULT_STORE, Format, Plugins, RunOf, StorePath, SuiteOf, load_plugins, note_left_out


def leaderboard(
    store: StorePath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    by: Annotated[str | None, typer.Option(metavar="AXIS", help="One set of boards per value of an axis.")] = None,
    where: Annotated[
        list[str], typer.Option(metavar="AXIS=A,B", help="Only these values of an axis. Repeatable.")
    ] = [],  # noqa: B006 -- typer needs a literal
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")
    ] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Add seconds, which differ between runs.")] = False,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Print the boards of the latest run: attacks, defenses, detectors, and what has no result."""
    from bench.engine.store import Store
    from reports import frame, render
    from reports.boards import leaderboard as boards

    load_plugins(plugin)
    axis = frame.axis_named(by) if by is not None else None
    held = Store(store)
    results = frame.read(held, suite=suite, run=run)
    if where:
        results = frame.narrow(results, where)
    render.render(boards.everything(results, by=axis, costs=costs, mixed=mixed), format_)
    note_left_out(held, run, suite)


def show(
    key: Annotated[
        str | None, typer.Argument(help="The beginning of a trial's or stage's key, as tables print it.")
    ] = None,
    store: StorePath = DEFAULT_STORE,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw clean, triggered and poisoned images into a file (png, pdf, svg): of the trial, or without KEY"
            " of every attack of the latest run.",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw what the strength of each swept attack or defense of the latest run does to retrieval.",
        ),
    ] = None,
    run: Annotated[
        str, typer.Option("--run", metavar="ID|latest|all", help="With a picture and no KEY: the run that is drawn.")
    ] = "latest",
    suite: Annotated[str | None, typer.Option(help="With a picture and no KEY: only runs of this suite.")] = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Print all that the store knows about one trial: settings, metrics, provenance, cost, stages; or draw pictures."""
    from bench.api.errors import UserError
    from bench.engine.store import Store

    load_plugins(plugin)
    if (suite is not None or run != "latest") and (key is not None or (gallery is None and curves is None)):
        raise UserError("--run and --suite are for --gallery or --curves FILE without KEY: leave them or KEY out")
    if curves is not None and (key is not None or gallery is not None):
        raise UserError("--curves FILE draws the sweeps of a whole run: leave KEY and --gallery out")
    key = key.strip().lower() if key is not None else None
    if curves is not None:
        from reports import curves as sweeps

        echo(f"{curves}: {sweeps.draw(Store(store), curves, suite=suite, run=run)}")
        return
    if gallery is not None:
        from reports import gallery as pictures

        found = pictures.draw(Store(store), gallery, key=key, suite=suite, run=run)
        echo(f"{gallery}: {found}")
        return
    if key is None:
        raise UserError(
            "show what? give a KEY, as tables print it, --gallery FILE.png for pictures of every attack, or"
            " --curves FILE.png for sweeps"
        )
    from reports import render, trial_details

    render.render(trial_details.page(Store(store), key), format_)


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A store.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="The store to compare with it.")],
    run: Annotated[str, typer.Option("--run", metavar="latest|all", help="The run of each store.")] = "latest",
    suite: SuiteOf = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Say what changed from store A to store B, and whether beyond noise; exit code 1 if so, or if a result is lost."""
    from bench.engine.store import Store
    from reports import compare as comparing
    from reports import frame, render

    load_plugins(plugin)
    first, second = Store(one), Store(other)
    results = [frame.read(store, suite=suite, run=run) for store in (first, second)]
    found = comparing.compare(results[0], results[1], first, second)
    render.render(found.boards, format_)
    for store in (first, second):
        note_left_out(store, run, suite)
    if found.changed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def score(
    query: Annotated[
        Path, typer.Argument(metavar="QUERY.npz", help="Arrays codes (n x bits) and labels (n, or n x k multi-hot).")
    ],
    database: Annotated[Path, typer.Argument(metavar="DATABASE.npz", help="The same for the database.")],
    target: Annotated[
        str | None,
        typer.Option(help="Label of the attack's target: the queries are triggered ones; t-mAP is computed."),
    ] = None,
    cutoff: Annotated[int | None, typer.Option(help="How many ranked items count (R); all without it.")] = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Score your own codes: +-1, 0/1, booleans or logits (the bit is x > 0), no training."""
    from reports import render, score

    load_plugins(plugin)
    render.render(score.score(query, database, target=target, cutoff=cutoff), format_)

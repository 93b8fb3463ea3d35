"""`bench leaderboard`, `show`, `compare` and `score`: results as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.api.errors import EXIT_FAILED_TRIALS, UserError
from bench.api.untrusted import strip_controls
from bench.cli.console import line, say
from bench.cli.options import (
    DEFAULT_STORE,
    Beside,
    Columns,
    Format,
    Label,
    Mixed,
    OutFolder,
    Pivot,
    Plugins,
    ReadPath,
    RunOf,
    SuiteOf,
    Where,
    Wide,
    load_plugins,
    note_left_out,
)

if TYPE_CHECKING:
    from bench.engine.store import Store
    from reports.board import Board


def leaderboard(
    store: ReadPath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="AXIS", help="Print separate boards for each value of an axis, for example --by bits."),
    ] = None,
    where: Where = [],  # noqa: B006 -- typer needs a literal
    mixed: Mixed = False,
    beside: Beside = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Also print run times in seconds, and the board defense-costs.")
    ] = False,
    board: Annotated[
        list[str],
        typer.Option("--board", metavar="NAME", help="Print only this board (see `bench list boards`). Repeatable."),
    ] = [],  # noqa: B006
    wide: Wide = False,
    columns: Columns = None,
    pivot: Pivot = None,
    label: Label = None,
    out: OutFolder = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Print the boards of the latest run: attacks, defenses, detectors, and trials without a result."""
    from bench.cli.report import made_boards, print_made
    from reports.arrange import failures_first

    made, held = made_boards(
        "leaderboard", [suite] if suite is not None else [], store, where, run, {"by": by, "costs": costs},
        mixed=mixed, beside=beside, plugin=plugin,
    )  # fmt: skip
    named = _named(made, board)
    shown = failures_first(named) if format_ == "rich" else named
    print_made(shown, format_, wide=wide, columns=columns, pivot=pivot, label=label, out=out)
    for selection, records in held:
        if format_ == "rich":  # names of rows leave out what all rows share, such as --set badnets.poison_rate=0.1
            for one in selection.shown:
                if one.command:
                    say(strip_controls(f"Run {one.id}: {one.whole_command}"))
        note_left_out(selection, records)


def _named(boards: Sequence[Board], names: Sequence[str]) -> list[Board]:
    """The boards of these kinds; UserError for a kind that the leaderboard does not have."""
    from bench.api.errors import unknown
    from reports.board_registry import all_boards

    held = list(dict.fromkeys(board.kind for board in boards))
    for name in names:
        if name not in all_boards():
            raise unknown("board", name, held)
        if name not in held:
            raise UserError(
                f"board '{name}' is not on this leaderboard ({', '.join(held)})", f"try `python -m bench report {name}`"
            )
    return [board for board in boards if not names or board.kind in names]


def show(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="Key of a trial or a stage; the first characters are enough.")
    ] = None,
    store: ReadPath = DEFAULT_STORE,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Write a picture file (png, pdf, svg) with clean, triggered and poisoned images. With KEY: of one"
            " trial. Without KEY: of all attacks of the latest run.",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw t-mAP, own-mAP and mAP against each parameter with at least 3 values in the latest run.",
        ),
    ] = None,
    retrieved: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw queries with and without trigger, and the first 8 database images that the clean, the attacked"
            " and each repaired model return.",
        ),
    ] = None,
    pr: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw precision and recall of clean and attacked models."),
    ] = None,
    where: Where = [],  # noqa: B006
    run: RunOf = "latest",
    suite: SuiteOf = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Print all information about one trial, or draw pictures."""
    from bench.cli.figures import draw_pictures
    from bench.engine.collection import opened

    load_plugins(plugin)
    asked = {"--gallery": gallery, "--retrieved": retrieved, "--pr": pr, "--curves": curves}
    key = key.strip().lower() if key is not None else None
    if draw_pictures(asked, store, key=key, run=run, suite=suite, where=where):
        return
    if key is None:
        raise UserError(
            "give a KEY (`python -m bench leaderboard --where target=0` prints keys), --gallery FILE.png for pictures"
            " of every attack, --retrieved FILE.png for what queries retrieve, --pr FILE.png for precision and recall,"
            " or --curves FILE.png for sweeps"
        )
    from reports import render, trial_details

    render.render(trial_details.page(opened(store), key), format_)


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A store, a bundle, or the word reference.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[B]", help="The store or bundle to compare with it. Without B: two runs of A."),
    ] = None,
    run: Annotated[
        list[str],
        typer.Option(
            "--run", metavar="ID|latest|all", help="Run of each store; given twice: of A, then of B. Default: latest."
        ),
    ] = [],  # noqa: B006 -- typer needs a literal
    suite: SuiteOf = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Compare two stores, or two runs of one.

    The exit code is 1 if a number changed by more than noise, or if B lacks a result of A.
    """
    from bench.engine.collection import opened, there
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select
    from reports import compare as comparing
    from reports import frame, render

    load_plugins(plugin)
    if other is not None and not (there(one) or there(other)):
        raise UserError(
            f"'{one}' and '{other}' are no stores",
            "two runs of one store: `python -m bench compare STORE --run ID --run ID`",
        )
    wanted = _two_runs(run, same=other is None)
    first, second = opened(one), opened(other if other is not None else one)
    caches = [RecordCache(store) for store in (first, second)]
    suites = [suite or _suite_for(store, of) for store, of in ((first, second), (second, first))]
    selections = [
        select(store, chosen, suite=named) for store, chosen, named in zip((first, second), wanted, suites, strict=True)
    ]
    results = [frame.results_of(one.shown, cache) for one, cache in zip(selections, caches, strict=True)]
    found = comparing.compare(results[0], results[1], first, second)
    render.render(found.boards, format_)
    for selection, cache in zip(selections, caches, strict=True):
        if other is not None:  # of one store, both runs were asked for
            note_left_out(selection, cache)
    if found.changed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _two_runs(given: Sequence[str], *, same: bool) -> tuple[str, str]:
    """The runs of A and of B. UserError: there are more, or one store needs two ids."""
    if len(given) > 2:
        raise UserError(f"--run is given {len(given)} times", "give it once, or once for A and once for B")
    if same and len(given) < 2:
        raise UserError("one store is given", "add a second one, or --run ID --run ID (see `python -m bench runs`)")
    first, *more = given or ["latest"]
    return first, more[0] if more else first


def _suite_for(store: Store, other: Store) -> str | None:
    """The suite of the other store's latest run, if the store is a collection of several runs; else None: any."""
    from bench.engine.collection import Collection

    several = isinstance(store, Collection) and not isinstance(other, Collection)
    return other.runs()[-1].suites[0] if several and other.runs() else None


def score(
    query: Annotated[
        Path,
        typer.Argument(
            metavar="QUERY",
            help="Arrays codes (n x bits) and labels (n, or n x k multi-hot), in a file of numpy (.npz, .npy), torch"
            " (.pt, .pth), safetensors, Parquet or MATLAB (.mat of version 5 to 7).",
        ),
    ],
    database: Annotated[
        Path, typer.Argument(metavar="DATABASE", help="Arrays codes and labels of the database images.")
    ],
    target: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Target label: the queries have a trigger, and t-mAP is computed."),
    ] = None,
    cutoff: Annotated[
        int | None, typer.Option(metavar="R", help="Use only the first R results of a query. Default: all.")
    ] = None,
    quantise: Annotated[
        Literal["sign", "itq"] | None,
        typer.Option(
            "--quantise",
            metavar="sign|itq",
            help="The files hold float embeddings: print what their mAP loses if they become codes. sign: x > 0. itq:"
            " rotated principal components, fitted to the database.",
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", min=1, metavar="N", help="Bits of --quantise itq. Default: 64, or fewer.")
    ] = None,
    plugin: Plugins = [],  # noqa: B006
    format_: Format = "rich",
) -> None:
    """Compute metrics of your own codes, without training. Codes: -1/+1, 0/1, booleans or logits (bit = x > 0).

    If all numbers lie from 0 to 1, as behind a sigmoid, the bit is x > 0.5, and the table says so.
    """
    from reports import quantisation, render, score

    load_plugins(plugin)
    if quantise is None and bits is not None:
        raise UserError(f"--bits {bits}: only --quantise itq has this option", "leave it out")
    if quantise is not None:
        if target is not None:
            raise UserError("--quantise compares queries without a trigger", "leave out --target")
        board, sentence = quantisation.quantised(query, database, quantise, bits=bits, cutoff=cutoff)
        render.render([board], format_)
        if format_ == "rich":
            line(sentence)
        return
    render.render(score.score(query, database, target=target, cutoff=cutoff), format_)

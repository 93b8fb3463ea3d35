"""`bench selfcheck`: a few trials of `quick`, compared with the shipped reference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import EXIT_FAILED_TRIALS
from bench.cli.console import line
from bench.cli.options import Device, Format
from bench.cli.run import KEPT, Count, ExecutorOption, Workers, carried_out, check_machine, command_of, manifest_of
from bench.cli.run import planned as planned_trials

if TYPE_CHECKING:
    from bench.engine.store import Store
    from reports.frame import Results


def selfcheck(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Keep the results in this store; the same command continues there. Default: a folder that is removed.",
        ),
    ] = None,
    executor: ExecutorOption = "auto",
    workers: Count = None,
    device: Device = "cpu",
    format_: Format = "rich",
) -> None:
    """Run nine trials of quick (two minutes) and compare them with the shipped reference. Exit code 1 if some differ.

    They are the clean model, badnets and blend; undefended, with fine_pruning and with strip. Each value has an allowed
    range. The reference was computed on a CPU.
    """
    from bench.engine.store import Store
    from reports import render
    from reports import selfcheck as checking

    check_machine()
    expected = _reference()
    with ExitStack() as stack:
        root = store or Path(stack.enter_context(TemporaryDirectory(prefix="hashdoor-selfcheck-")))
        held = Store(root, create=True)
        held.check_writable()
        measured = _run(held, Workers(executor, workers), device, kept=store is not None)
        found = checking.of(expected, measured)
    render.render([checking.board(found)], format_)
    if format_ == "rich":
        line(found.sentence)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _reference() -> Results:
    """The shipped run of the suite."""
    from bench.engine.collection import opened
    from bench.engine.store import REFERENCE
    from reports import frame
    from reports.selfcheck import SUITE

    return frame.read(opened(Path(REFERENCE)), suite=SUITE)


def _run(held: Store, workers: Workers, device: str, *, kept: bool) -> Results:
    """The results of the trials, after those that the store lacks have run."""
    from bench.engine.record_cache import RecordCache
    from bench.engine.worker import Environment
    from reports import frame
    from reports.selfcheck import ONLY, SUITE

    made, loaded, chosen = planned_trials([SUITE], [], list(ONLY), None, [], device)
    finished = carried_out(
        made,
        held,
        manifest_of(made, loaded, command_of([SUITE], [], list(ONLY))),
        Environment(held.root.resolve(), None, chosen),
        workers,
        kept=KEPT if kept else "and lost; --store DIR keeps them",
    )
    return frame.results_of([finished.manifest], RecordCache(held))

"""`bench selfcheck`: a few trials of `quick`, compared with the shipped reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    from bench.engine.record import RunManifest
    from bench.engine.store import Store
    from bench.graph.plan import Plan
    from reports.frame import Results
    from reports.selfcheck import SelfCheck

KeptStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Keep the results in this store; the same command continues there. Default: a folder that is removed.",
    ),
]


def selfcheck(
    store: KeptStore = None,
    executor: ExecutorOption = "auto",
    workers: Count = None,
    device: Device = "cpu",
    format_: Format = "rich",
) -> None:
    """Run nine trials of quick (two minutes) and compare them with the shipped reference. Exit code 1 if some differ.

    They are the clean model, badnets and blend; undefended, with fine_pruning and with strip. Each value has an allowed
    range. The reference was computed on a CPU.
    """
    from reports import selfcheck as checking

    check_machine()
    expected = _reference()
    with kept_or_removed(store) as held:
        made, loaded, chosen = planned_trials([checking.SUITE], [], list(checking.ONLY), None, [], device)
        manifest = manifest_of(made, loaded, command_of([checking.SUITE], [], list(checking.ONLY)))
        measured = results_of(made, held, manifest, chosen, Workers(executor, workers), kept=store is not None)
    print_checked(checking.of(expected, measured), format_)


def print_checked(found: SelfCheck, format_: str, title: str = "Self-check") -> None:
    """Print checked values and the verdict. Exit code 1 if a value is outside its range, or a trial has no result."""
    from reports import render
    from reports import selfcheck as checking

    render.render([checking.board(found, title)], format_)
    if format_ == "rich":
        line(found.sentence)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


@contextmanager
def kept_or_removed(store: Path | None) -> Iterator[Store]:
    """A store for a run; without a path in a temporary folder. UserError if it cannot be written."""
    from bench.engine.store import Store

    with TemporaryDirectory(prefix="hashdoor-") as folder:
        held = Store(store or Path(folder), create=True)
        held.check_writable()
        yield held


def results_of(
    made: Plan,
    held: Store,
    manifest: RunManifest,
    device: str,
    workers: Workers,
    *,
    kept: bool,
    data: Path | None = None,
) -> Results:
    """The results of a plan, after what the store lacks has run. kept: whether the store stays after the command."""
    from bench.engine.record_cache import RecordCache
    from bench.engine.worker import Environment
    from reports import frame

    environment = Environment(held.root.resolve(), data.resolve() if data else None, device)
    said = KEPT if kept else "and lost; --store DIR keeps them"
    finished = carried_out(made, held, manifest, environment, workers, kept=said)
    return frame.results_of([finished.manifest], RecordCache(held))


def _reference() -> Results:
    """The shipped run of the suite."""
    from bench.engine.collection import opened
    from bench.engine.store import REFERENCE
    from reports import frame
    from reports.selfcheck import SUITE

    return frame.read(opened(Path(REFERENCE)), suite=SUITE)

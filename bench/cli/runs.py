"""The commands `bench runs`, which lists the runs of a store, and `bench gc`, which removes files."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import UserError
from bench.cli.console import console, echo, line
from bench.cli.options import DEFAULT_STORE, Format, ReadPath, StorePath, emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.engine.record import RunManifest

YEAR = 365 * 86400.0  # an earlier time is that of a bundle, which has none
SECONDS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}


def runs(store: ReadPath = DEFAULT_STORE, format_: Format = "rich") -> None:
    """List the runs of a store, the latest first: id, time, suite, trials, size and command."""
    from bench.engine.collection import opened
    from bench.engine.record import LASTING_FAILURES, Status
    from bench.engine.runs import summaries

    held = opened(store)
    manifests = held.manifests()
    rows = []
    for one in summaries(held, manifests.runs[::-1]):
        failed = sum(one.trials[status] for status in (*LASTING_FAILURES, Status.KILLED))
        rows.append(
            {
                "id": one.run.id,
                "when (UTC)": time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.run.started))
                if one.run.started > YEAR
                else "-",
                "suite": " + ".join(one.run.suites),
                "trials": str(len(one.run.trials)),
                "ok": str(one.trials[Status.OK]),
                "failed": str(failed),
                "missing": str(one.trials[Status.MISSING]),
                "MB": f"{one.size / 1e6:.1f}",
                "command": one.run.whole_command,
            }
        )
    if rows or format_ != "rich":
        emit("Runs", rows, format_)
    elif not manifests.unreadable:
        echo(f"store '{store}' has no run yet: start `python -m bench run`")
    for path in manifests.unreadable:
        line(f"cannot be read: {path}", out=console(stderr=True))


def gc(
    store: StorePath = DEFAULT_STORE,
    run: Annotated[
        list[str], typer.Option("--run", metavar="ID", help="Remove this run and its results. Repeatable.")
    ] = [],  # noqa: B006 -- typer needs a literal
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="30d", help="Remove runs older than this (h, d or w).")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, metavar="N", help="Keep the latest N runs, and remove the others.")
    ] = None,
    repaired: Annotated[bool, typer.Option("--repaired", help="Also remove models that defenses repaired.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Also remove damaged files (folder damaged/).")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how much would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove files that no run needs. To remove results, choose runs with --run, --older-than or --keep.

    Nothing is removed if a chosen run is going on, or if a run's manifest cannot be read or has differing copies. No
    run can start meanwhile.
    """
    from bench.engine import gc as collection
    from bench.engine.running import GC, marked
    from bench.engine.store import Store

    held = Store(store)
    limit = None if older_than is None else time.time() - _age(older_than)

    def chosen(every: Sequence[RunManifest]) -> set[str]:
        old = [one for one in every if limit is not None and one.started < limit]
        beyond = [] if keep is None else every[:-keep]
        return {one.id for one in (*_named(every, run), *old, *beyond)}

    with nullcontext() if dry_run else marked(held, GC):  # no run begins before the files are removed
        unneeded = collection.unneeded(held, drop=chosen, repaired=repaired, damaged=damaged)
        size = sum(path.lstat().st_size for path in unneeded.files)
        if not dry_run:
            collection.remove(held, unneeded.files)
    total = sum(path.stat().st_size for path in held.root.rglob("*") if path.is_file())
    verb = "would free" if dry_run else "freed"
    of_all = f"{len(unneeded.dropped)} of {unneeded.runs} runs"
    removed = "" if not unneeded.dropped else f" and remove {of_all}" if dry_run else f", {of_all} removed"
    echo(f"{verb} {size / 1e6:.1f} MB in {len(unneeded.files)} files{removed}; the store holds {total / 1e6:.1f} MB")


def _named(every: Sequence[RunManifest], names: Sequence[str]) -> list[RunManifest]:
    from bench.engine.runs import ALL, LATEST, with_id

    for name in names:
        if name in {ALL, LATEST}:
            raise UserError(f"--run {name}: expected a run's id (see `python -m bench runs`); or use --keep")
    return [with_id(every, name) for name in names]


def _age(text: str) -> float:
    """The seconds of a text such as "12h", "30d" or "4w"."""
    if (found := re.fullmatch(r"(\d{1,6})([hdw])", text)) is None:
        raise UserError(f"--older-than {text}: expected a number of up to six digits with h, d or w, for example 30d")
    return int(found[1]) * SECONDS[found[2]]

"""`bench rerun`: train some trials of a published run again, and compare."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import UserError
from bench.api.untrusted import strip_controls
from bench.cli.console import console, line
from bench.cli.options import Data, Device, Format, RunOf, SuiteOf, device_of, note_left_out
from bench.cli.run import Count, ExecutorOption, Workers, check_machine
from bench.cli.selfcheck import KeptStore, kept_or_removed, print_checked, results_of

if TYPE_CHECKING:
    from bench.config.trial import PlannedTrial
    from bench.engine.draw import Draw

SEEDS = 10**6  # of draws
WORDS = ("python", "-m", "bench", "rerun")


def rerun(
    published: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, a store, or the word reference.")],
    run: RunOf = "latest",
    suite: SuiteOf = None,
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="Number of trials to draw.")] = 1,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of the draw. Default: a new one, printed.")
    ] = None,
    store: KeptStore = None,
    data: Data = None,
    executor: ExecutorOption = "auto",
    workers: Count = None,
    device: Device = "cpu",
    format_: Format = "rich",
) -> None:
    """Draw trials of a published run, train them again, and compare. Exit code 1 if a value is outside its range.

    Trials with an attack are drawn first. Components of this installation run and nothing of the bundle; trials that
    name a file are left out. A stranger's trial may take long: a stage stops after half an hour. To continue in a kept
    --store, give the same --seed.
    """
    from bench.engine.collection import opened
    from bench.engine.draw import draw
    from bench.engine.provenance import provenance
    from bench.engine.record import RunManifest
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select
    from reports import frame
    from reports import selfcheck as checking

    check_machine()
    held = opened(published)
    selection, cache = select(held, run, suite=suite), RecordCache(held)
    note_left_out(selection, cache)
    if len(selection.shown) > 1:
        raise UserError(f"--run {run}: expected one run", "give --run ID (see `python -m bench runs`)")
    (theirs,) = selection.shown
    chosen, drawn_with = device_of(device), secrets.randbelow(SEEDS) if seed is None else seed
    done = [one for one in theirs.trials if one.key and (record := cache.record(one.key)) and record.ok]
    drawn = draw(done, trials, seed=drawn_with, data=data, device=chosen.partition(":")[0])
    _say(drawn, len(done), trials, drawn_with)
    words = [*WORDS, str(published), "--run", theirs.id]
    command = shlex.join([*words, "--trials", str(trials), "--seed", str(drawn_with)])
    manifest = RunManifest(
        suites=theirs.suites,
        command=command,
        trials=drawn.plan.trials,
        stages=list(drawn.plan.stages),
        provenance=provenance(),
    )
    with kept_or_removed(store) as mine:
        runs = mine.runs()
        if any(not run.command.startswith(shlex.join(WORDS)) for run in runs) or (mine.keys() and not runs):
            raise UserError(
                f"'{store}' holds results of other runs, which would be taken in place of new ones",
                "give a new folder, or that of an earlier rerun",
            )
        spread = Workers(executor, workers)
        measured = results_of(drawn.plan, mine, manifest, chosen, spread, kept=store is not None, data=data)
    expected = frame.results_of([theirs.model_copy(update={"trials": list(drawn.trials)})], cache)
    print_checked(checking.of(expected, measured), format_, "Rerun")


def _say(drawn: Draw, among: int, wanted: int, seed: int) -> None:
    """Say on stderr which trials were drawn. UserError if none can run here."""
    why = "; ".join(f"{reason} ({count} trials)" for reason, count in drawn.reasons.most_common())
    if not drawn.trials:
        raise UserError(f"no trial of the run can run here: {why or 'it has no result'}")
    out = console(stderr=True)
    line(f"note: drawn with seed {seed} among {among} trials with a result:", out=out)
    for one in drawn.trials:
        line(f"note:   {_named(one)}", out=out)
    if len(drawn.trials) < wanted:
        line(f"note: only {len(drawn.trials)} can run here: {strip_controls(why)}", out=out)


def _named(planned: PlannedTrial) -> str:
    return strip_controls(", ".join(f"{axis} {value}" for axis, value in planned.trial.axes().items()))

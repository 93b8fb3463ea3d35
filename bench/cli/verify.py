"""`bench verify` and `bench rescore`: a store's numbers computed again, without training."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.api.errors import EXIT_FAILED_TRIALS, UserError
from bench.api.untrusted import strip_controls
from bench.cli.console import console
from bench.cli.options import DEFAULT_STORE, Plugins, RunOf, StorePath, SuiteOf, load_plugins, note_left_out

SHOWN = 20  # trials whose differences are printed


def verify(
    store: StorePath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Take what does not hold out of the store: the next run makes it again.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
) -> None:
    """Compute every number that boards show again from stored codes, scores and masks; exit code 1 on a mismatch."""
    from rich.progress import track
    from rich.text import Text

    from bench.engine.recompute import Verifier
    from bench.engine.runs import chosen
    from bench.engine.store import Store

    load_plugins(plugin)
    held = Store(store)
    if set_aside:
        held.check_writable()
    keys = dict.fromkeys(trial.key for manifest in chosen(held, run, suite=suite) for trial in manifest.trials)
    records = [record for key in keys if key and (record := held.record(key)) and record.ok]
    if not records:
        raise UserError(f"store '{store}' holds no finished trial of this run: `python -m bench run` makes some")
    verifier = Verifier(held)
    aside = console(stderr=True)
    watched = track(records, "verifying", console=aside, transient=True, disable=not aside.is_terminal)
    wrong = [(record, problems) for record in watched if (problems := verifier.problems(record))]
    out = console(soft_wrap=True)
    for record, problems in wrong[:SHOWN]:
        out.print(Text(strip_controls(f"{record.key[:8]} {record.label}: {'; '.join(problems)}")))
    if len(wrong) > SHOWN:
        out.print(f"and {len(wrong) - SHOWN} more")
    out.print(
        f"{len(records) - len(wrong)} of {len(records)} trials are what their codes, scores and masks give, "
        f"from artifacts whose checksums hold."
    )
    out.print("Taken as recorded: seconds and hosts, scores of model detectors, what defenses noted, throughput.")
    if verifier.unknown:
        names = ", ".join(sorted(verifier.unknown))
        out.print(f"Not checked, since their plugin is not loaded: {names}. Name it with --plugin.")
    if verifier.newer:
        names = ", ".join(sorted(verifier.newer))
        out.print(f"Newer than some of these trials: {names}. `python -m bench rescore` measures them.")
    note_left_out(held, run, suite)
    if wrong:
        if set_aside:
            for record, _ in wrong:
                held.set_aside(record)
        out.print(
            "Set aside: run the suite again."
            if set_aside
            else "A new metric over old runs: `python -m bench rescore`; what is damaged: `python -m bench verify"
            " --set-aside`, then run the suite again."
        )
        raise typer.Exit(EXIT_FAILED_TRIALS)


def rescore(
    store: StorePath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Measure the trials of a run again with the metrics as they are now, without training."""
    from rich.progress import track
    from rich.text import Text

    from bench.engine.recompute import rescore as again
    from bench.engine.runs import chosen
    from bench.engine.store import Store

    load_plugins(plugin)
    held = Store(store)
    held.check_writable()
    manifest = chosen(held, run, suite=suite)[-1]
    old = [trial.key for trial in manifest.trials]
    aside = console(stderr=True)
    pairs = track(
        again(held, manifest.trials), "measuring", len(old), console=aside, transient=True,
        disable=not aside.is_terminal,
    )  # fmt: skip
    trials, records = map(list, zip(*pairs, strict=True))
    moved = sum(trial.key != key for trial, key in zip(trials, old, strict=True))
    failed = [record for record in records if record is not None and not record.ok]
    out = console(soft_wrap=True)
    if moved:
        held.write_run(manifest.model_copy(update={"trials": trials}))
    measured = sum(record is not None for record in records)
    out.print(f"{measured} trials measured, {moved} of them anew; {len(old) - measured} have no result to measure.")
    for record in failed[:SHOWN]:
        out.print(Text(strip_controls(f"{record.status}: {record.label}: {record.reason}")))
    if failed:
        raise typer.Exit(EXIT_FAILED_TRIALS)

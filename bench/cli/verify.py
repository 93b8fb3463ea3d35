"""`bench verify` and `bench rescore`: compute the numbers of a store again, without training."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import EXIT_FAILED_TRIALS, UserError
from bench.cli.console import line, watched
from bench.cli.options import DEFAULT_STORE, Plugins, ReadPath, RunOf, StorePath, SuiteOf, load_plugins, note_left_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from bench.config.trial import PlannedTrial
    from bench.engine.recompute import Verifier
    from bench.engine.record import Record, RunManifest
    from bench.engine.store import Store

SHOWN = 20  # number of trials whose differences are printed


def verify(
    given: Annotated[
        Path | None, typer.Argument(metavar="[STORE]", help="The same as --store, for example a bundle.")
    ] = None,
    store: ReadPath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Remove records that fail the check; the next run computes them again.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also if numbers cannot be computed again here.")
    ] = False,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
) -> None:
    """Compute all numbers of a run again from the stored codes, scores and masks. Exit code 1 if a number differs."""
    from bench.engine.bundle import ReadOnly
    from bench.engine.collection import opened
    from bench.engine.recompute import Verifier
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select

    load_plugins(plugin)
    if given is not None and store != DEFAULT_STORE:
        raise UserError(f"two stores are given, '{given}' and --store '{store}'", "give one of them")
    held = opened(given or store)
    if set_aside:
        held.check_writable()
    selection = select(held, run, suite=suite)
    verifier = Verifier(held)
    records, wrong = verified(held, selection.shown, verifier)
    for record, problems in wrong[:SHOWN]:
        line(f"{record.key[:8]} {record.label}: {'; '.join(problems)}")
    if len(wrong) > SHOWN:
        line(f"and {len(wrong) - SHOWN} more")
    _print_counts({record.key for record in records}, {record.key for record, _ in wrong}, verifier.as_recorded)
    _print_limits(verifier)
    note_left_out(selection, RecordCache(held), standing=False)  # the lines above say how far it is checked
    if wrong:
        if set_aside:
            for record, _ in wrong:
                held.set_aside(record)
        line(
            "The records above were removed (folder `damaged`): run the suite again."
            if set_aside
            else "Do not use these numbers: ask their author for a bundle that verifies."
            if isinstance(held, ReadOnly)
            else "If a metric is new: `python -m bench rescore`. If files are damaged:"
            " `python -m bench verify --set-aside`, then run the suite again."
        )
        raise typer.Exit(EXIT_FAILED_TRIALS)
    if strict and (verifier.as_recorded or verifier.unknown):
        raise typer.Exit(EXIT_FAILED_TRIALS)


def verified(
    store: Store, runs: Sequence[RunManifest], verifier: Verifier
) -> tuple[list[Record], list[tuple[Record, list[str]]]]:
    """The finished trials of runs, and those with problems. UserError if there is no finished trial."""
    trials = [trial for manifest in runs for trial in manifest.trials]
    planned: dict[str | None, list[PlannedTrial]] = {trial.key: [] for trial in trials}
    for trial in trials:
        planned[trial.key].append(trial)
    records = [record for key in planned if key and (record := store.record(key)) and record.ok]
    if not records:
        raise UserError(f"store '{store.root}' has no finished trial of this run", "start `python -m bench run`")
    return records, [
        (record, problems)
        for record in watched(records, "verifying")
        if (problems := verifier.problems(record, planned[record.key]))
    ]


def _print_counts(keys: AbstractSet[str], wrong: AbstractSet[str], as_recorded: AbstractSet[str]) -> None:
    """Print how many trials agree, and how many could not be computed again; a collection may hold both."""
    if as_recorded:
        line(
            f"{len(as_recorded - wrong)} of {len(as_recorded)} trials have whole records. Their numbers are as"
            " recorded: the codes, scores and masks that they follow from were not published."
        )
    if computed := keys - as_recorded:
        line(
            f"{len(computed - wrong)} of {len(computed)} trials agree with their stored codes, scores and masks, and"
            " the checksums of these files are right."
        )


def _print_limits(verifier: Verifier) -> None:
    """Print what verification does not cover, and on which machines the trials were computed if on several."""
    line("Not checked: seconds, hosts, throughput, scores of model detectors, notes of defenses.")
    if verifier.unknown:
        names = ", ".join(sorted(verifier.unknown))
        line(f"Cannot be computed again here, because the plugin is not loaded (--plugin FILE): {names}.")
    if verifier.newer:
        names = ", ".join(sorted(verifier.newer))
        line(f"Some of these trials lack newer metrics: {names}. `python -m bench rescore` adds them.")
    if len(verifier.machines) > 1 or any(len(of) > 1 for of in verifier.machines):
        line("These trials were computed on different machines, whose numbers differ:")
        for of, count in verifier.machines.most_common():
            line(f"  {count} trials on {' and '.join(map(str, of)) or 'an unknown machine'}")


def rescore(
    store: StorePath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Compute the metrics of a run again with the metrics of this version. Nothing is trained."""
    from bench.engine.recompute import rescore as again
    from bench.engine.record_cache import RecordCache
    from bench.engine.running import RESCORE, marked
    from bench.engine.runs import select
    from bench.engine.store import Store

    load_plugins(plugin)
    held = Store(store)
    held.check_writable()
    moved = 0
    records: list[Record | None] = []
    scored: list[RunManifest] = []
    with marked(held, RESCORE):  # before the runs are read, so that `gc` cannot remove them in between
        selection = select(held, run, suite=suite)
        manifests = selection.shown
        note_left_out(selection, RecordCache(held))
        count = sum(len(manifest.trials) for manifest in manifests)
        measured = watched(again(held, [trial for one in manifests for trial in one.trials]), "measuring", count)
        for manifest in manifests:
            pairs = list(islice(measured, len(manifest.trials)))
            trials, found = [trial for trial, _ in pairs], [record for _, record in pairs]
            moved += sum(trial.key != old.key for trial, old in zip(trials, manifest.trials, strict=True))
            scored.append(manifest.model_copy(update={"trials": trials}))
            records += found
        for manifest in scored if moved else ():  # all of them, so that their order stays
            held.write_run(manifest)
    failed = [record for record in records if record is not None and not record.ok]
    without = records.count(None)
    said = f"{count - without - len(failed)} trials measured, {moved} of them anew; {without} have no result"
    line(said + (f"; {len(failed)} could not be measured and keep what they have." if failed else "."))
    for record in failed[:SHOWN]:
        line(f"{record.status}: {record.label}: {record.reason}")
    if failed:
        raise typer.Exit(EXIT_FAILED_TRIALS)

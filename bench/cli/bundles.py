"""`bench publish` and `bench merge`: runs that others can read and check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import UserError
from bench.cli.console import echo, line, watched
from bench.cli.options import DEFAULT_STORE, Plugins, RunOf, StorePath, SuiteOf, load_plugins

if TYPE_CHECKING:
    from bench.engine.bundle import Bundle
    from bench.engine.store import Store

NAMED = 3  # problems that an error names


def publish(
    store: StorePath = DEFAULT_STORE,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.zip", help="File of the bundle. Default: SUITE.zip.")
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="With the codes, scores, labels and masks that the numbers are computed from."),
    ] = False,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
) -> None:
    """Write a run into one zip (a bundle) that others can read and check. It holds no images and no weights."""
    from bench.engine.publish import publish as made
    from bench.engine.runs import select
    from bench.engine.store import Store, write_whole

    load_plugins(plugin)
    held = Store(store)
    shown = select(held, run, suite=suite).shown
    if len(shown) > 1:
        raise UserError("a bundle holds one run", "give --run ID (see `python -m bench runs`)")
    path = out or Path(f"{'+'.join(shown[0].suites)}.zip")
    if path.suffix != ".zip":
        raise UserError(f"--out {path}: the name of a bundle ends with .zip")
    found = made(held, shown[0], evidence=evidence, watched=lambda records: watched(records, "verifying"))
    try:
        write_whole(path, found.content)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror})", "give another --out") from None
    missing = f", {found.without} without a result" if found.without else ""
    parts = f", evidence {found.evidence / 1e3:,.0f} kB unpacked" if evidence else ", no evidence"
    echo(
        f"{path}: run {shown[0].id}, {found.trials} trials verified{missing}, {found.records} records{parts};"
        f" {len(found.content) / 1e3:,.0f} kB"
    )


def merge(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle of `bench publish`.")],
    store: Annotated[
        Path, typer.Option("--store", metavar="DIR", help="Folder of the collection; it is made if it is not there.")
    ] = Path("bundles"),
    own: Annotated[
        Path | None,
        typer.Option(
            "--own",
            metavar="DIR",
            help="A store with your run of the same trials: if it agrees, the status is rerun.",
        ),
    ] = None,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Verify a bundle and add it to a collection, with its status: reported, verified or rerun.

    A bundle with a wrong number is refused. Nothing of the bundle is executed.
    """
    from bench.cli.verify import verified
    from bench.engine.bundle import Bundle, Standing
    from bench.engine.collection import add
    from bench.engine.recompute import Verifier

    load_plugins(plugin)
    held = Bundle(bundle)
    verifier = Verifier(held)
    _, wrong = verified(held, held.runs(), verifier)
    if wrong:
        texts = [f"{record.key[:8]} {record.label}: {problems[0]}" for record, problems in wrong[:NAMED]]
        raise UserError(f"'{bundle}' is not merged: {len(wrong)} trials do not verify ({'; '.join(texts)})")
    left_out = verifier.newer | verifier.unknown  # what the bundle does not say, or what nobody here can compute
    standing = Standing.REPORTED if verifier.as_recorded or left_out else Standing.VERIFIED
    if own is not None and standing is Standing.VERIFIED:
        said, agrees = _agreement(held, own)
        standing = Standing.RERUN if agrees else standing
        line(said)
    entry = add(held, store, standing)
    if verifier.newer:
        line(f"The bundle lacks numbers that its evidence gives ({', '.join(sorted(verifier.newer))}).")
    if verifier.unknown:
        line(f"Not checked, because the plugin is not loaded (--plugin FILE): {', '.join(sorted(verifier.unknown))}.")
    for run in held.runs():
        line(f"{store / entry.file}: run {run.id} ({' + '.join(run.suites)}), status {entry.status}")


def _same_computation(bundle: Bundle, own: Store) -> bool:
    """Whether a stage of a bundle ran in this store: two computations do not take exactly the same time."""
    both = ((bundle.record(key), own.record(key)) for key in bundle.keys())  # noqa: SIM118 -- no dictionary
    costs = ((one.cost, other.cost) for one, other in both if one is not None and other is not None)
    return any(one is not None and other is not None and one.seconds == other.seconds > 0 for one, other in costs)


def _agreement(bundle: Bundle, own: Path) -> tuple[str, bool]:
    """A line about an own run of the same trials, and whether it has all of them and agrees with their numbers."""
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import ALL, select
    from bench.engine.store import Store
    from reports import compare, frame

    mine = opened(own)
    if type(mine) is not Store:
        raise UserError(f"--own '{own}' is a bundle, and not a store with results of your own", "run the suite")
    if _same_computation(bundle, mine):
        return f"The bundle was made from {own}, which therefore confirms nothing.", False
    theirs = frame.results_of(select(bundle).shown, RecordCache(bundle))
    ours = frame.results_of(select(mine, ALL).shown, RecordCache(mine))
    found = compare.compare(theirs, ours, bundle, mine)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items() if count)
    agrees = bool(counts) and not found.changed
    verdict = "It agrees." if agrees else "It does not confirm the bundle."
    return f"Own run in {own}: {counts or 'no trial of the bundle'}. {verdict}", agrees

"""`bench best`: the list of the best known attacks and defenses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import UserError
from bench.cli.console import line
from bench.cli.options import Columns, Format, RunOf, SuiteOf, Wide, note_left_out

if TYPE_CHECKING:
    from bench.engine.record import RunManifest
    from bench.engine.store import Store
    from reports.best_known import Origin


def best(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="STORE|reference",
            help="Also print the results of this store or bundle that are better than what is known, and only the"
            " settings that it has.",
        ),
    ] = None,
    run: RunOf = "latest",
    suite: SuiteOf = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add these results to the list. The store must be a published bundle.")
    ] = False,
    list_: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE.jsonl", help="Another list. Default: the list of this package."),
    ] = None,
    wide: Wide = False,
    columns: Columns = None,
    format_: Format = "rich",
) -> None:
    """Print the hardest known attack for each defense, and the strongest known defense against each attack.

    Lines are only added to the list, each with the checksum of the line before it.
    """
    from bench.cli.report import print_made
    from bench.engine.collection import opened
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import select
    from reports import best_board, best_known, best_results, frame

    if append and store is None:
        raise UserError("--append adds results of a run", "give --store BUNDLE too")
    known = best_known.read(list_ or best_known.shipped_path())
    if store is None:
        made = best_board.boards(known)
        if not made:
            raise UserError(f"list '{known.path}' is empty", "add results with --store BUNDLE --append")
        print_made(made, format_, wide=wide, columns=columns)
        return
    held = opened(store)
    selection, cache = select(held, run, suite=suite), RecordCache(held)
    shown = selection.shown
    if len(shown) > 1:
        raise UserError("the origin of a result is one run", "give --run ID (see `python -m bench runs`)")
    note_left_out(selection, cache)
    found = best_results.results_of(frame.results_of(shown, cache))
    better = known.improved_by(found)
    if append and better:
        known = best_known.append(known, better, _origin(held, shown[0]))
    made = best_board.boards(known, [one.setting for one in found])
    made += [best_board.improvements_board(better, str(store))] if better and not append else []
    if made:
        print_made(made, format_, wide=wide, columns=columns)
    if format_ == "rich":
        said = f"added to {known.path}" if append else "better than what is known"
        line(f"{len(better)} of {len(found)} results of run {shown[0].id}: {said}.")


def _origin(store: Store, run: RunManifest) -> Origin:
    """Where the results of a published run come from. UserError for a store that is not published, or wrong numbers."""
    from bench.cli.verify import verified
    from bench.engine.recompute import Verifier
    from reports.best_known import Origin

    bundle = store.origin(run)
    if not bundle:
        raise UserError(
            f"'{store.root}' is no bundle: entries come from published runs, which hold no paths and have a commit",
            "`python -m bench publish --evidence` makes one",
        )
    verifier = Verifier(store)
    _, wrong = verified(store, [run], verifier)
    if wrong or verifier.as_recorded:
        said = (
            f"{len(wrong)} trials do not verify ({wrong[0][1][0]})" if wrong else "its numbers cannot be computed again"
        )
        raise UserError(f"run {run.id} is not added: {said}", "see `python -m bench verify`")
    git = run.provenance.git
    today = datetime.now(UTC).date().isoformat()
    suite = "+".join(run.suites)
    return Origin(suite=suite, bundle=bundle, run=run.id, commit=git.commit[:12] if git else "", added=today)

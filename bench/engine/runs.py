"""The runs of a store: selects runs for a command, and summarizes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bench.api.errors import UserError, unknown
from bench.engine.gc import needed
from bench.engine.record import RunManifest, Status
from bench.engine.record_cache import RecordCache
from bench.engine.store import Manifests, Store

LATEST, ALL = "latest", "all"
SHORTEST = 4  # characters of an id that a user must give


def chosen(store: Store, run: str = LATEST, *, suite: str | None = None) -> list[RunManifest]:
    """The runs that a command selects, at least one, the latest last.

    run: "latest", "all", or the first characters of an id. suite: only runs of this suite. UserError if no run or
    several runs match.
    """
    return _chosen(store, store.manifests(), run, suite)


def _chosen(store: Store, manifests: Manifests, run: str, suite: str | None) -> list[RunManifest]:
    found = [manifest for manifest in manifests.runs if suite is None or suite in manifest.suites]
    if not found:
        known = sorted({name for manifest in manifests.runs for name in manifest.suites})
        if suite is not None and known:
            raise unknown("suite", suite, known, "suites with runs in this store")
        if broken := manifests.unreadable:
            raise UserError(f"'{broken[0]}' cannot be read, and the store has no other run: run the suite again")
        raise UserError(f"store '{store.root}' has no run yet: start `python -m bench run`")
    if run == ALL:
        return found
    if run == LATEST:
        return found[-1:]
    named = [manifest for manifest in found if manifest.id.startswith(run)]
    if not named or len(run) < SHORTEST:
        raise unknown("run", run, [LATEST, ALL, *(manifest.id for manifest in found[::-1])])
    if len(named) > 1:
        raise UserError(
            f"--run {run} matches {len(named)} runs: give more characters of {', '.join(one.id for one in named)}"
        )
    return named


def left_out(store: Store, run: str = LATEST, *, suite: str | None = None) -> str:
    """A line about runs that `chosen` leaves out, larger ones and unreadable ones; "" if there are none."""
    manifests = store.manifests()
    shown = _chosen(store, manifests, run, suite)
    ids = {manifest.id for manifest in shown}
    most = max(len(manifest.trials) for manifest in shown)
    larger = [one for one in manifests.runs if one.id not in ids and len(one.trials) > most]
    said = []
    if larger and len(shown) == 1:
        largest = max(larger, key=lambda one: len(one.trials))
        said.append(
            f"This is run {shown[0].id} ({title(shown[0])}). Run {largest.id} ({title(largest)}) is larger:"
            f" --run {largest.id} shows it, `python -m bench runs` lists all runs."
        )
    if broken := manifests.unreadable:
        said.append(f"Manifests that cannot be read are left out: {', '.join(path.name for path in broken[:3])}.")
    return " ".join(said)


def title(run: RunManifest) -> str:
    return f"{' + '.join(run.suites)}, {len(run.trials)} trials"


@dataclass(frozen=True)
class RunSummary:
    """A run, the number of its trials by status, and the bytes of all artifacts and records that it needs."""

    run: RunManifest
    trials: Counter[Status]
    size: int


def summaries(store: Store, runs: Iterable[RunManifest]) -> list[RunSummary]:
    """The summaries of runs. Each record is read once, since runs share most of them."""
    cache, found = RecordCache(store), []
    for run in runs:
        statuses = Counter(cache.status_of(planned.key)[0] if planned.key else Status.SKIPPED for planned in run.trials)
        keys = needed(store, [run], complete=False, read=cache.record)
        found.append(RunSummary(run, statuses, sum(map(store.size_of, keys))))
    return found

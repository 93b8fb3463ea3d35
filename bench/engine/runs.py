"""The runs of a store: selects runs for a command, and summarizes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.api.errors import UserError, unknown
from bench.config.suite import is_file, name_and_text
from bench.engine.gc import needed
from bench.engine.record import RunManifest, Status
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store

LATEST, ALL = "latest", "all"
SHORTEST = 4  # characters of an id that a user must give


@dataclass(frozen=True)
class Selection:
    """The runs that a command shows, and those that it leaves out.

    shown: at least one run, the latest last. others: the runs that `left_out` compares with the one that is shown.
    unreadable: manifests that cannot be read. about_text: a line about runs of another text than the suite file's, or
    "".
    """

    shown: Sequence[RunManifest]
    others: Sequence[RunManifest]
    unreadable: Sequence[Path]
    about_text: str


@dataclass(frozen=True)
class _Suite:
    """The suite that a user asks for. name: None for any. text: of the suite file; None for any."""

    name: str | None = None
    text: str | None = None

    @classmethod
    def of(cls, given: str | None, known: Collection[str]) -> _Suite:
        if given is None or given in known or not is_file(given):
            return cls(given)
        return cls(*name_and_text(given))

    def ran_in(self, run: RunManifest) -> bool:
        return self.name is None or self.name in run.suites

    def has_text_of(self, run: RunManifest) -> bool:
        return self.name is None or self.text is None or run.texts.get(self.name) == self.text


def select(store: Store, run: str = LATEST, *, suite: str | None = None) -> Selection:
    """The runs that a command selects. UserError if no run or several runs match.

    run: "latest", "all", or the first characters of an id. suite: only runs of this suite, by its name or file. A store
    may have runs of several texts with one name. For a file, the runs of its text count, or all if there are none.
    """
    manifests = store.manifests()
    known = sorted({name for manifest in manifests.runs for name in manifest.suites})
    wanted = _Suite.of(suite, known)
    found = list(filter(wanted.ran_in, manifests.runs))
    if not found:
        if wanted.name is not None and known:
            raise unknown("suite", wanted.name, known, "suites with runs in this store")
        if broken := manifests.unreadable:
            raise UserError(f"'{broken[0]}' cannot be read, and the store has no other run", "run the suite again")
        raise UserError(f"store '{store.root}' has no run yet", "start `python -m bench run`")
    same = list(filter(wanted.has_text_of, found))
    shown = (same or found)[-1 if run == LATEST else 0 :] if run in {LATEST, ALL} else [with_id(found, run)]
    about = ""
    if not all(map(wanted.has_text_of, shown)):
        about = f"What is shown ran another text than '{suite}' has now: an older one, or a file of the same name."
    elif run == ALL and (more := len(found) - len(same)):
        about = (
            f"Left out: {more} {'run' if more == 1 else 'runs'} of suite '{wanted.name}' with another text than"
            f" '{suite}' has now; --suite '{wanted.name}' shows them too."
        )
    others = [one for one in manifests.runs if run != ALL and not any(one is other for other in shown)]
    return Selection(shown, others, manifests.unreadable, about)


def chosen(store: Store, run: str = LATEST, *, suite: str | None = None) -> Sequence[RunManifest]:
    """The runs that a command selects, at least one, the latest last; see `select`."""
    return select(store, run, suite=suite).shown


def with_id(runs: Sequence[RunManifest], start: str) -> RunManifest:
    """The run whose id begins so. UserError if there is none, or more than one."""
    named = [manifest for manifest in runs if manifest.id.startswith(start)]
    if not named or len(start) < SHORTEST:
        raise unknown("run", start, [LATEST, ALL, *(manifest.id for manifest in runs[::-1])])
    if len(named) > 1:
        raise UserError(
            f"--run {start} matches {len(named)} runs", f"give more characters of {', '.join(one.id for one in named)}"
        )
    return named[0]


def left_out(selection: Selection, records: RecordCache) -> str:
    """A line about runs that a command leaves out: with more results, of another text, unreadable; "" without any."""
    said = [selection.about_text] if selection.about_text else []
    (*_, shown) = selection.shown
    results = sum(records.has_result(planned.key) for planned in shown.trials)
    for other in sorted(selection.others, key=_runnable, reverse=True):
        if _has_more(other, results, records):
            said.append(
                f"This is run {shown.id} ({title(shown)}, {results} with a result). Run {other.id} ({title(other)}) has"
                f" more results: --run {other.id} shows it, `python -m bench runs` lists all runs."
            )
            break
    if broken := selection.unreadable:
        said.append(f"Manifests that cannot be read are left out: {', '.join(path.name for path in broken[:3])}.")
    return " ".join(said)


def _runnable(run: RunManifest) -> int:
    return sum(planned.key is not None for planned in run.trials)


def _has_more(run: RunManifest, results: int, records: RecordCache) -> bool:
    """Whether a run has more results than this number. As few records as possible are read."""
    left, found = _runnable(run), 0
    for planned in run.trials:
        if found > results or found + left <= results:
            break
        if planned.key is not None:
            left -= 1
            found += records.has_result(planned.key)
    return found > results


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

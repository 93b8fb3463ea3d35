"""Finds the files of a store that no run needs any more. A file stays unless it is certain that no run needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.api.errors import StoreError
from bench.api.kinds import DefenseKind
from bench.engine.record import Record, RunManifest, is_key
from bench.engine.running import DAY, RESCORE, ended_marks, going_on
from bench.engine.store import Store, is_temporary, writing

FOLDERS = ("records", "artifacts", "manifests")
Choice = Callable[[Sequence[RunManifest]], Collection[str]]


def no_run(runs: Sequence[RunManifest]) -> Collection[str]:
    """The choice of no run."""
    del runs
    return ()


@dataclass(frozen=True)
class Unneeded:
    """Files that no run needs. dropped: ids of the runs that do not count. runs: number of runs of the store."""

    files: list[Path]
    dropped: frozenset[str]
    runs: int


def unneeded(store: Store, *, drop: Choice = no_run, repaired: bool = False, damaged: bool = False) -> Unneeded:
    """The files that no run of the store needs. Nothing is removed.

    drop: chooses the ids of the runs that do not count, from all runs, the latest last, so that the choice and the
    needed files come from one reading of the manifests. repaired: models that defenses repaired count as unneeded.
    damaged: damaged files that earlier runs moved away count as unneeded. StoreError if it is uncertain which files
    runs need: a manifest is missing, unreadable or has differing copies, a dropped run goes on, a run begins, or a
    folder is a link, since its files may be those of another store.
    """
    for folder in (*FOLDERS, "running"):
        if (linked := store.root / folder).is_symlink():
            raise StoreError(
                f"nothing is removed: '{linked}' is a link to '{linked.resolve()}', whose files another store may need."
                " Remove results in the store that owns the folder"
            )
    named = list(_named_by_keys(store))  # before the manifests are read, so that no result of a later run is among them
    before, manifests = _manifest_files(store), store.manifests()
    if broken := manifests.unreadable:
        names = ", ".join(f"'{path}'" for path in broken[:3])
        raise StoreError(
            f"nothing is removed: the manifest {names} cannot be read, so the files that its run needs are unknown."
            " Restore the file from a copy, run its suite again, or remove the file if its results may go"
        )
    if differing := manifests.differing:
        names = " and ".join(f"'{path}'" for path in manifests.paths[differing[0]])
        raise StoreError(
            f"nothing is removed: {names} hold run {differing[0]} with different contents. Remove all but one of them"
        )
    runs = manifests.runs
    if not runs:
        raise StoreError(f"nothing is removed: store '{store.root}' has no run, so the needed files are unknown")
    dropped = frozenset(drop(runs))
    _no_affected_run(store, dropped, manifests.paths.keys())
    kept = [run for run in runs if run.id not in dropped]
    found = [path for run in dropped for path in manifests.paths[run]]
    wanted = needed(store, kept)
    found += [path for path in named if path.stem not in wanted]
    found += _repaired(store, wanted) if repaired else ()
    found += [*(_damaged(store) if damaged else ()), *_leftovers(store)]
    _no_affected_run(store, dropped, manifests.paths.keys())
    if _manifest_files(store) != before:
        raise StoreError("nothing is removed: a run began or ended meanwhile. Run the same command again")
    files = [path for path in found if path.is_symlink() or path.is_file()]
    return Unneeded(files, dropped, len(runs))


def _no_affected_run(store: Store, dropped: Collection[str], known: Collection[str]) -> None:
    """StoreError if a process goes on whose results would be removed. known: ids of the runs that have a manifest."""
    for run, host in going_on(store).items():
        if run in dropped or run == RESCORE:
            what = "`rescore`" if run == RESCORE else f"run {run}"
            raise StoreError(
                f"nothing is removed: {what} is going on on machine '{host}'", "stop it first, or wait for its end"
            )
        if run not in known:
            raise StoreError(
                f"nothing is removed: run {run} has just begun on machine '{host}', and has no manifest yet",
                "run the same command again",
            )


def remove(store: Store, paths: Collection[Path]) -> None:
    """Remove files of a store. A file that has gone already is no error. StoreError if the store is not writable."""
    with writing(store.root):
        for path in paths:
            path.unlink(missing_ok=True)


def needed(
    store: Store,
    runs: Collection[RunManifest],
    *,
    complete: bool = True,
    read: Callable[[str], Record | None] | None = None,
) -> set[str]:
    """Keys of all stages that the runs' trials depend on, by the manifests and by the records of stages.

    complete: StoreError if a damaged record leaves some unknown. read: a cache of the store's records; by default each
    record is read from its file.
    """
    read = read or store.record
    listed = {key for run in runs for key in run.stages}
    found = listed | {planned.key for run in runs for planned in run.trials if planned.key}
    todo = list(found)
    while todo:
        record = read(key := todo.pop())
        if record is None:
            if complete and key not in listed and store.has_record_file(key):
                raise StoreError(
                    f"nothing is removed: the record {key} is damaged, and no manifest lists its inputs",
                    "run its suite again",
                )
            continue
        fresh = {parent for parent in record.parents.values() if is_key(parent)} - found
        found |= fresh
        todo += fresh
    return found


def _named_by_keys(store: Store) -> Iterator[Path]:
    """Records and artifacts: only files that are named by a key."""
    for pattern in ("records/*.json", "artifacts/*.safetensors"):
        yield from (path for path in store.root.glob(pattern) if is_key(path.stem))


def _manifest_files(store: Store) -> dict[Path, tuple[int, int]]:
    """The manifests, with a change of their content visible."""
    files = store.root.glob("manifests/*.json")
    return {path: (about.st_mtime_ns, about.st_size) for path in files for about in [path.lstat()]}


def _repaired(store: Store, kept: set[str]) -> Iterator[Path]:
    """Models that defenses repaired."""
    for key in kept:
        record = store.record(key)
        if record is not None and record.meta.kind is DefenseKind.REPAIR:
            yield store.artifact_path(key)


def _damaged(store: Store) -> Iterator[Path]:
    """Damaged files that were moved away. A link in place of the folder is skipped: its files are not the store's."""
    folder = store.root / "damaged"
    for pattern in () if folder.is_symlink() else ("*.json", "*.safetensors"):
        yield from (path for path in folder.glob(pattern) if is_key(path.stem))


def _leftovers(store: Store) -> Iterator[Path]:
    """Temporary files and marks of killed processes. Files younger than a day stay: their run may still go on."""
    for folder in (store.root, *(store.root / name for name in FOLDERS)):
        files = () if folder.is_symlink() and folder != store.root else folder.glob(".*.tmp")
        yield from (path for path in files if is_temporary(path.name) and path.lstat().st_mtime < time.time() - DAY)
    yield from ended_marks(store)

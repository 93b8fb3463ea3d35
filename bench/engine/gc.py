"""Finds the files of a store that no run needs any more. A file stays unless it is certain that no run needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from bench.api.errors import StoreError
from bench.api.kinds import DefenseKind
from bench.engine.record import Record, RunManifest, is_key
from bench.engine.running import DAY, ended_marks, going_on
from bench.engine.store import Store, writing


def unneeded(
    store: Store, *, dropped: Collection[str] = (), repaired: bool = False, damaged: bool = False
) -> list[Path]:
    """The files that no run of the store needs. Nothing is removed.

    dropped: ids of runs that do not count; StoreError if one of them is going on. repaired: models that defenses
    repaired count as unneeded. damaged: damaged files that earlier runs moved away count as unneeded. StoreError if the
    store has no manifest or one that cannot be read, since the files that runs need are unknown then, or if a folder is
    a link, since its files may be those of another store.
    """
    for folder in ("records", "artifacts", "manifests"):
        if (linked := store.root / folder).is_symlink():
            raise StoreError(
                f"nothing is removed: '{linked}' is a link to '{linked.resolve()}', whose files another store may need."
                " Remove results in the store that owns the folder"
            )
    manifests = store.manifests()
    if broken := manifests.unreadable:
        names = ", ".join(f"'{path}'" for path in broken[:3])
        raise StoreError(
            f"nothing is removed: the manifest {names} cannot be read, so the files that its run needs are unknown."
            " Restore the file from a copy, run its suite again, or remove the file if its results may go"
        )
    runs = manifests.runs
    if not runs:
        raise StoreError(f"nothing is removed: store '{store.root}' has no run, so the needed files are unknown")
    for run, host in going_on(store).items():
        if run in dropped:
            raise StoreError(
                f"nothing is removed: run {run} is going on on machine '{host}'. Stop it first, or wait for its end"
            )
    kept = [run for run in runs if run.id not in dropped]
    found = [path for run in runs if run.id in dropped for path in manifests.paths[run.id]]
    found += _of_no_run(store, needed(store, kept), repaired=repaired)
    found += [*(_damaged(store) if damaged else ()), *_leftovers(store)]
    return [path for path in found if path.is_symlink() or path.is_file()]


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
                    f"nothing is removed: the record {key} is damaged, and no manifest lists its inputs: run its suite"
                    " again"
                )
            continue
        fresh = {parent for parent in record.parents.values() if is_key(parent)} - found
        found |= fresh
        todo += fresh
    return found


def _of_no_run(store: Store, kept: set[str], *, repaired: bool) -> Iterator[Path]:
    """Records and artifacts that no run needs. Only files that are named by a key count."""
    for pattern in ("records/*.json", "artifacts/*.safetensors"):
        yield from (path for path in store.root.glob(pattern) if is_key(path.stem) and path.stem not in kept)
    for key in kept if repaired else ():
        record = store.record(key)
        if record is not None and record.meta.kind is DefenseKind.REPAIR:
            yield store.artifact_path(key)


def _damaged(store: Store) -> Iterator[Path]:
    """Damaged files that were moved away. A link in place of the folder is skipped: its files are not the store's."""
    folder = store.root / "damaged"
    yield from () if folder.is_symlink() else folder.glob("*")


def _leftovers(store: Store) -> Iterator[Path]:
    """Temporary files and marks of killed processes. Files younger than a day stay: their run may still go on."""
    for folder in store.root.iterdir():
        if not folder.is_symlink():
            yield from (path for path in folder.glob(".*.tmp") if path.lstat().st_mtime < time.time() - DAY)
            yield from ended_marks(store) if folder.name == "running" else ()

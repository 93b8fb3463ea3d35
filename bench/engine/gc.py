"""Which files of a store nothing needs any more. What cannot be proven to be unneeded stays."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from bench.api.errors import StoreError
from bench.api.kinds import CODE_CHANGING
from bench.engine.record import RunManifest, is_key
from bench.engine.store import Store, writing

DAY = 86400.0  # seconds


def unneeded(
    store: Store, *, dropped: Collection[str] = (), repaired: bool = False, damaged: bool = False
) -> list[Path]:
    """The files that no run of the store needs. Nothing is written.

    dropped: ids of runs that go as well. repaired: models that defenses repaired count as unneeded. damaged: so do
    files that earlier runs set aside. StoreError where a manifest cannot be read or none exists: what the runs need is
    unknown then.
    """
    if broken := store.unreadable_manifests():
        names = ", ".join(f"'{path}'" for path in broken[:3])
        raise StoreError(
            f"nothing is removed: the manifest {names} cannot be read, so what its run needs is unknown; restore the"
            " file from a copy, run its suite again, or remove the file if its results may go"
        )
    runs = store.runs()
    if not runs:
        raise StoreError(f"nothing is removed: store '{store.root}' has no run, so what is needed is unknown")
    kept = [run for run in runs if run.id not in dropped]
    found = [path for run in runs if run.id in dropped for path in store.manifest_paths(run.id)]
    found += _of_no_run(store, needed(store, kept), repaired=repaired)
    found += [*(_damaged(store) if damaged else ()), *_leftovers(store)]
    return [path for path in found if path.is_symlink() or path.is_file()]


def remove(store: Store, paths: Collection[Path]) -> None:
    with writing(store.root):
        for path in paths:
            path.unlink(missing_ok=True)


def needed(store: Store, runs: Collection[RunManifest], *, complete: bool = True) -> set[str]:
    """Keys of all stages that the runs' trials stand on, by their manifests and by the records of stages.

    complete: StoreError where a damaged record leaves some unknown.
    """
    listed = {key for run in runs for key in run.stages}
    found = listed | {planned.key for run in runs for planned in run.trials if planned.key}
    todo = list(found)
    while todo:
        record = store.record(key := todo.pop())
        if record is None:
            if complete and key not in listed and store.has_record_file(key):
                raise StoreError(
                    f"nothing is removed: the record {key} is damaged, and no manifest lists its inputs; run its suite"
                    " again"
                )
            continue
        fresh = {parent for parent in record.parents.values() if is_key(parent)} - found
        found |= fresh
        todo += fresh
    return found


def _of_no_run(store: Store, kept: set[str], *, repaired: bool) -> Iterator[Path]:
    """Files named by keys and no others, whatever a folder of a stranger's store may link to."""
    for pattern in ("records/*.json", "artifacts/*.safetensors"):
        yield from (path for path in store.root.glob(pattern) if is_key(path.stem) and path.stem not in kept)
    for key in kept if repaired else ():
        record = store.record(key)
        if record is not None and record.meta.kind in CODE_CHANGING:
            yield store.artifact_path(key)


def _damaged(store: Store) -> Iterator[Path]:
    """Files that were set aside; not where the folder is a link, whose files are not the store's."""
    folder = store.root / "damaged"
    yield from () if folder.is_symlink() else folder.glob("*")


def _leftovers(store: Store) -> Iterator[Path]:
    """Files that killed processes leave; a file of a run that goes on now is younger."""
    for folder in store.root.iterdir():
        if not folder.is_symlink():
            left = folder.glob("*" if folder.name == "running" else ".*.tmp")
            yield from (path for path in left if path.lstat().st_mtime < time.time() - DAY)

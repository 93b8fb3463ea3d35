"""Which files of a store nothing needs any more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.api.kinds import CODE_CHANGING
from bench.engine.record import Record, is_key
from bench.engine.store import Store, writing

DAY = 86400.0  # seconds


def unneeded(store: Store, *, repaired: bool = False) -> list[Path]:
    """The files that no run of the store needs. repaired: models that defenses repaired count as such."""
    records = {record.key: record for record in store.records()}
    found = [*_of_no_run(store, records, repaired), *_damaged(store), *_leftovers(store)]
    return [path for path in found if path.is_symlink() or path.is_file()]


def remove(store: Store, paths: list[Path]) -> None:
    with writing(store.root):
        for path in paths:
            path.unlink(missing_ok=True)


def _needed(store: Store, records: Mapping[str, Record]) -> set[str]:
    """Keys of all stages that some run's trials stand on."""
    found: set[str] = set()
    for run in store.runs():
        trials = {planned.key for planned in run.trials if planned.key}
        unfinished = any(key not in records or not records[key].ok for key in trials)
        found |= trials.union(run.stages if unfinished else ())  # the same command continues with them
    todo = list(found)
    while todo:
        record = records.get(todo.pop())
        fresh = set(record.parents.values()) - found if record is not None else set()
        found |= fresh
        todo += fresh
    return found


def _of_no_run(store: Store, records: Mapping[str, Record], repaired: bool) -> Iterator[Path]:
    """Files named by keys and no others, whatever a folder of a stranger's store may link to."""
    needed = _needed(store, records)
    dropped = {key for key, record in records.items() if repaired and record.meta.kind in CODE_CHANGING}
    for pattern, kept in (("records/*.json", needed), ("artifacts/*.safetensors", needed - dropped)):
        yield from (path for path in store.root.glob(pattern) if is_key(path.stem) and path.stem not in kept)


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

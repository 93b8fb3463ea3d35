"""Marks of the runs that are going on, so that `gc` does not remove their results, and of `gc` itself; and a lock.

A run marks itself first, and then looks whether `gc` goes on; `gc` marks itself first, and then looks which runs go on.
So at least one of two that begin together sees the other.

A mark is a file in `running/` that the driver of a run locks and touches every hour. It names the driver's machine,
since only there the lock is sure: a mark of another machine counts for a day after its last touch. A kill leaves a mark
without a lock.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.api.errors import StoreError
from bench.api.untrusted import read_bytes, strip_controls
from bench.engine.store import Store, writing

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

# These stand for the id of a run. The new results of `rescore` are in no manifest until its end.
RESCORE, GC = "rescore", "gc"
DAY, HOUR = 86400.0, 3600.0  # seconds
LONGEST = 1000  # bytes of a mark


@contextmanager
def marked(store: Store, run: str) -> Iterator[None]:
    """Mark a run as going on inside the block. StoreError if the store is not writable, or if `gc` is going on."""
    path = store.root / "running" / f"{run}.{secrets.token_hex(4)}.run"  # two drivers may have the same run
    with writing(store.root):
        path.parent.mkdir(exist_ok=True)
        file = path.open("xb")
    ended = threading.Event()
    try:
        with writing(store.root):
            _lock(file)
            file.write(socket.gethostname().encode())
            file.flush()
        _no_gc(store, path)
        threading.Thread(target=_touch, args=(path, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        with suppress(OSError):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            file.close()


def going_on(store: Store) -> dict[str, str]:
    """Ids of the runs that are going on, without `gc`, with the machine of each."""
    return {run: host for path, host in _alive(store).items() if (run := _run_of(path)) != GC}


def _alive(store: Store) -> dict[Path, str]:
    """The marks of processes that are going on, with the machine of each. A link in place of the folder is no folder.

    The name of the machine is "" in a mark that is just being written.
    """
    folder, found = store.root / "running", {}
    for path in () if folder.is_symlink() else folder.glob("*.run"):
        with suppress(OSError, ValueError):  # it has gone, or it is no ordinary file
            host = strip_controls(read_bytes(path, LONGEST).decode())
            if _goes_on(path, host):
                found[path] = host
    return found


def _run_of(mark: Path) -> str:
    return mark.name.partition(".")[0]


def _no_gc(store: Store, own: Path) -> None:
    """StoreError if another process removes files, which may be results that this one is about to take."""
    for path, host in _alive(store).items():
        if path != own and _run_of(path) == GC:
            raise StoreError(
                f"`gc` is removing files of store '{store.root}' on machine '{host}'",
                f"wait for its end, then run the same command again. If it was killed, remove '{path}'",
            )


def ended_marks(store: Store) -> list[Path]:
    """Marks of runs that were killed more than a day ago. Other files of the folder are not marks."""
    folder, found = store.root / "running", []
    for path in () if folder.is_symlink() else folder.glob("*.run"):
        with suppress(OSError, ValueError):
            old = path.lstat().st_mtime < time.time() - DAY
            if old and not _goes_on(path, strip_controls(read_bytes(path, LONGEST).decode())):
                found.append(path)
    return found


def _goes_on(path: Path, host: str) -> bool:
    """On its own machine a lock is certain, however old the mark of a suspended run is; elsewhere the age counts."""
    if fcntl is not None and host == socket.gethostname():
        return _locked(path)
    return abs(time.time() - path.stat().st_mtime) < DAY


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HOUR):
        with suppress(OSError):
            os.utime(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is inside this block for the same folder. A file system without locks lets all in."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(file: IO[bytes]) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks: the time of the mark decides
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(path: Path) -> bool:
    """Whether a process holds a mark's lock, or nobody can tell."""
    if fcntl is None:
        return True
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

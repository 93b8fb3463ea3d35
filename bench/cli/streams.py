"""Standard output and error that cannot end a command: a closed pipe, a full disk, a terminal without Unicode."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Failures:
    """What could not be written to standard output; empty where its reader just went away, as `head` does."""

    errors: list[OSError] = field(default_factory=list)


class _Patient(io.BufferedIOBase):
    """Passes bytes on until that fails, and then drops them."""

    def __init__(self, raw: Any, failed: list[OSError]) -> None:
        self._raw, self._failed, self._open = raw, failed, True

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def write(self, data: Any) -> int:
        self._do(lambda: self._raw.write(data))
        return len(data)

    def flush(self) -> None:
        self._do(self._raw.flush)

    def _do(self, call: Any) -> None:
        if not self._open:
            return
        try:
            call()
        except OSError as error:
            self._open = False
            if error.errno not in {errno.EPIPE, errno.ECONNRESET}:
                self._failed.append(error)


@contextmanager
def patient_streams() -> Iterator[Failures]:
    """Inside the block a command runs to its end whatever becomes of its output."""
    failures = Failures()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        _patient(stream, failed) for stream, failed in zip(before, (failures.errors, list[OSError]()), strict=True)
    )
    try:
        yield failures
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        for made, old in zip((sys.stdout, sys.stderr), before, strict=True):
            if made is not old and made is not None:
                made.detach()  # the old stream keeps its file
        sys.stdout, sys.stderr = before


def _patient(stream: Any, failed: list[OSError]) -> Any:
    raw = getattr(stream, "buffer", None)
    if raw is None:  # closed, or a notebook's
        return stream
    stream.flush()
    return io.TextIOWrapper(
        _Patient(raw, failed), encoding=stream.encoding, errors="replace", newline="\n" if raw.isatty() else None,
        line_buffering=raw.isatty(), write_through=True,
    )  # fmt: skip

"""Standard output and error that cannot stop a command: a closed pipe or a full disk only ends the output."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Failures:
    """Errors of standard output. A closed pipe, as behind `| head`, is no error."""

    errors: list[OSError] = field(default_factory=list)


class _TolerantStream(io.BufferedIOBase):
    """Writes bytes to another stream until that fails, then drops all further bytes."""

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
def tolerant_streams() -> Iterator[Failures]:
    """Inside the block, errors of standard output and error raise nothing. Yields those of standard output."""
    failures = Failures()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        _tolerant(stream, failed) for stream, failed in zip(before, (failures.errors, list[OSError]()), strict=True)
    )
    try:
        yield failures
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        for made, old in zip((sys.stdout, sys.stderr), before, strict=True):
            if made is not old and made is not None and old is not None:
                made.detach()  # the old stream keeps its file
        sys.stdout, sys.stderr = before


def _tolerant(stream: Any, failed: list[OSError]) -> Any:
    if stream is None:  # the process was started with a closed stream
        return Path(os.devnull).open("w")
    raw = getattr(stream, "buffer", None)
    if raw is None:  # a notebook's stream
        return stream
    stream.flush()
    return io.TextIOWrapper(
        _TolerantStream(raw, failed), encoding=stream.encoding, errors="replace",
        newline="\n" if raw.isatty() else None, line_buffering=raw.isatty(), write_through=True,
    )  # fmt: skip

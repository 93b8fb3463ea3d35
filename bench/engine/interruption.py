"""A request to stop a run: Ctrl-C, or a signal of the system."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds in which an interrupt reaches the driver; signals in this time are one request


class Interruption:
    """Remembers that a run was asked to stop, because the KeyboardInterrupt alone can be lost.

    Raised inside a destructor it is only printed, and inside a callback of a library it can become another error. Then
    the driver stops after the stage, and the error is not recorded as a failure of the stage.
    """

    def __init__(self) -> None:
        self.asked = False
        self._closing = False
        self._at = -math.inf

    def ask(self) -> None:
        """Ask the run to stop; for signal handlers. KeyboardInterrupt, unless the run is stopping already."""
        now = time.monotonic()
        if now - self._at < PATIENCE:
            return
        self.asked, self._at = True, now
        if not self._closing:
            raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if the run was asked to stop."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def kept(self) -> Iterator[None]:
        """KeyboardInterrupt in place of an error inside the block that came after the run was asked to stop."""
        try:
            yield
        except Exception:
            self.check()
            raise

    def close(self) -> None:
        """Remember requests without an exception, since the run stops its workers now."""
        self._closing = True

    def open(self) -> None:
        """Accept requests again."""
        self._closing = False

"""Executors run stages: here in this process, in `ray_executor` under Ray."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, runtime_checkable

from bench.api.errors import StageTimeoutError
from bench.engine.interruption import Interruption
from bench.engine.record import Record, Status
from bench.engine.worker import LOG_TAIL, Environment, run_stage, warm_up
from bench.graph.plan import Stage

AGAIN = 5.0  # seconds after which an alarm rings again: an exception in a destructor is lost
FOREVER = 1e7  # seconds; a suite may set an infinite timeout, which system timers refuse


@dataclass(frozen=True)
class Done:
    """The end of a stage.

    record: the stage's record; None for a stage that could not write one, because it was killed or ran out of time:
    `status`, `reason` and `log` (the end of its output) are set then.
    """

    key: str
    record: Record | None
    status: Status = Status.OK
    reason: str = ""
    log: str = ""


@runtime_checkable
class Executor(Protocol):
    slots: int  # number of stages that run at once, for estimates

    def fits(self, stage: Stage) -> bool:
        """Whether the stage could start now, beside the stages that run."""

    def submit(self, stage: Stage) -> None: ...

    def poll(self, seconds: float) -> list[Done]:
        """The stages that have ended. Waits at most `seconds` for the first."""

    def close(self) -> None:
        """Stop everything that still runs."""


class SerialExecutor:
    """Runs one stage after the other in this process. A timeout interrupts Python code, not a call into a library."""

    slots = 1

    def __init__(self, environment: Environment, interruption: Interruption | None = None) -> None:
        self._environment, self._interruption = environment, interruption
        self._waiting: list[Stage] = []

    def fits(self, stage: Stage) -> bool:
        del stage
        return not self._waiting

    def submit(self, stage: Stage) -> None:
        self._waiting.append(stage)

    def poll(self, seconds: float) -> list[Done]:
        del seconds
        if not self._waiting:
            return []
        stage = self._waiting.pop(0)
        warm_up(stage)
        try:
            with _alarm(stage.timeout):
                return [Done(stage.key, run_stage(stage, self._environment, self._interruption))]
        except StageTimeoutError:  # the alarm came while the record was being written
            return [Done(stage.key, None, Status.TIMEOUT, f"ran longer than {stage.timeout:g} s")]
        except SystemExit as error:  # under Ray this ends a worker, which counts as killed too
            why = f"the stage ended its process ({error!r})"
            return [Done(stage.key, None, Status.KILLED, why, traceback.format_exc()[-LOG_TAIL:])]

    def close(self) -> None:
        self._waiting.clear()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise StageTimeoutError in the main thread after `seconds`. Does nothing on Windows, which has no such alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise StageTimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, FOREVER), AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

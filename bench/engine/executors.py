"""Executors: where stages run. The only file that imports ray."""

from __future__ import annotations

import faulthandler
import os
import secrets
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls_multiline
from bench.engine.record import Record, Status
from bench.engine.store import writing
from bench.engine.worker import LOG_TAIL, Environment, StageTimeoutError, run_stage, warm_up
from bench.graph.planner import Stage

FOREVER = 1e7  # seconds: a suite may say inf, a clock may not


@dataclass(frozen=True)
class Done:
    """A stage has ended. record: what it wrote; None: it could not (killed, out of time), and `status` says so.

    log: what it still said.
    """

    key: str
    record: Record | None
    status: Status = Status.OK
    reason: str = ""
    log: str = ""


@runtime_checkable
class Executor(Protocol):
    slots: int  # stages at once, for estimates

    def fits(self, stage: Stage) -> bool:
        """Whether the stage would start at once beside those that run."""

    def submit(self, stage: Stage) -> None: ...

    def poll(self, seconds: float) -> list[Done]:
        """What ended, after waiting at most that long for the first."""

    def close(self) -> None:
        """Stop everything that still runs."""


class SerialExecutor:
    """One stage after the other in this process. A timeout interrupts Python code, but not a call into a library."""

    slots = 1

    def __init__(self, site: Environment) -> None:
        self._site = site
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
                return [Done(stage.key, run_stage(stage, self._site))]
        except StageTimeoutError:  # it rang while the record was being written
            return [Done(stage.key, None, Status.TIMEOUT, f"ran longer than {stage.timeout:g} s")]
        except SystemExit as error:  # under Ray this ends a worker
            why = f"it ended its process ({error!r})"
            return [Done(stage.key, None, Status.KILLED, why, traceback.format_exc()[-LOG_TAIL:])]

    def close(self) -> None:
        self._waiting.clear()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise StageTimeoutError in the main thread after `seconds`, on systems that have such an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise StageTimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, FOREVER))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class RayExecutor:
    """Stages as Ray tasks, on this machine or on a cluster.

    The driver owns retries (`max_retries=0`) and never submits more than there are slots, so that a task starts when it
    is submitted and the clock of its timeout is the stage's own.
    """

    def __init__(
        self, site: Environment, *, workers: int | None = None, address: str | None = None, gpus: float | None = None
    ) -> None:
        """Start or join Ray.

        workers: stages at once (default: as many as cores or GPU shares allow). gpus: logical GPUs for a local Ray;
        None: those that are there, if the device is one.
        """
        import ray

        if ":" in site.device:
            raise UserError(
                f"--device {site.device}: Ray hands out GPUs itself; give --device cuda, or --executor serial"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray, self._site, self._workers = ray, site, workers
        self._run = secrets.token_hex(4)  # tells this driver's marks from those of others, dead ones included
        self._gpu = gpus is not None or site.device.startswith("cuda")
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                ray.init(address="local", num_cpus=workers, num_gpus=gpus, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"Ray does not start ({str(error).splitlines()[0]}): check --address (RAY_AUTH_MODE=token"
                " for a cluster with a token), or use --executor serial"
            ) from None
        if on_terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray's own prints a stack and leaves the run's ends loose
        self._resources = ray.cluster_resources()
        self._running: dict[Any, tuple[Stage, float | None]] = {}
        self.slots = workers or max(1, int(self._resources.get("CPU", 1)))
        self._remote = ray.remote(max_retries=0, max_calls=0)(_task)

    def fits(self, stage: Stage) -> bool:
        running = [other for other, _ in self._running.values()]
        if not running:
            return True
        cpus = sum(map(self._cpus, running)) + self._cpus(stage)
        gpus = sum(map(self._gpus, running)) + self._gpus(stage)
        return (
            len(running) < self.slots
            and cpus <= self._resources.get("CPU", 1) + 1e-6
            and gpus <= self._resources.get("GPU", 0) + 1e-6
        )

    def _cpus(self, stage: Stage) -> float:
        return min(float(stage.threads), float(self._resources.get("CPU", 1)))

    def _gpus(self, stage: Stage) -> float:
        return stage.num_gpus if self._gpu else 0.0

    def submit(self, stage: Stage) -> None:
        self._mark(stage).unlink(missing_ok=True)  # a worker that died at this stage may have left one
        options = {"num_cpus": self._cpus(stage), "num_gpus": self._gpus(stage), "name": stage.label}
        future = self._remote.options(**options).remote(stage, self._site, self._mark(stage))
        self._running[future] = (stage, None)

    def poll(self, seconds: float) -> list[Done]:
        if not self._running:
            return []
        running = list(self._running)
        self._ray.wait(running, num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(running, num_returns=len(running), timeout=0)  # none that is done may run out of time
        found = [self._collect(future) for future in ready]
        now = time.monotonic()
        for future, (stage, started) in list(self._running.items()):
            if started is None:
                if self._has_started(stage):
                    self._running[future] = (stage, now)
            elif now - started > stage.timeout:
                self._ray.cancel(future, force=True)
                del self._running[future]
                why = f"ran longer than {stage.timeout:g} s and was killed"
                found.append(Done(stage.key, None, Status.TIMEOUT, why, self._last_words(stage)))
        return found

    def _mark(self, stage: Stage) -> Path:
        """A file that a worker makes when it enters a stage: the clock of the timeout starts there."""
        return self._site.store / "running" / f"{stage.key}.{self._run}"

    def _has_started(self, stage: Stage) -> bool:
        return self._mark(stage).exists()

    def _last_words(self, stage: Stage) -> str:
        """What a worker that is no more wrote into its mark."""
        mark = self._mark(stage)
        try:
            said = mark.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # it never came to the stage
            return ""
        mark.unlink(missing_ok=True)
        return strip_controls_multiline(said)[-LOG_TAIL:]

    def _collect(self, future: Any) -> Done:
        stage, _ = self._running.pop(future)
        errors = self._ray.exceptions
        try:
            return Done(stage.key, self._ray.get(future))
        except errors.OutOfMemoryError as error:
            return Done(stage.key, None, Status.OOM, str(error).splitlines()[0], self._last_words(stage))
        except (
            errors.WorkerCrashedError,
            errors.RaySystemError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            why = f"its worker died: {str(error).splitlines()[0]}"
            return Done(stage.key, None, Status.KILLED, why, self._last_words(stage))
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoreError):
                raise StoreError(str(error.cause)) from None
            raise

    def close(self) -> None:
        """Leave Ray, which ends the workers of this run. Cancelling a task that ends just then makes Ray abort."""
        self._running.clear()
        self._ray.shutdown()


def reachable(address: str, seconds: float = 5.0) -> None:
    """Fail soon where nothing listens: Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto" and other words are Ray's to resolve
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start one with `ray start --head`,"
            " or leave --address out"
        ) from None


def _task(stage: Stage, site: Environment, mark: Path) -> Record:
    """What a Ray worker does."""
    if not site.store.is_dir():
        raise StoreError(
            f"the machine {socket.gethostname()} does not see the store '{site.store}': name a --store in a folder that"
            " all nodes share"
        )
    warm_up(stage)
    with writing(site.store):
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    with _heard(mark, stage.timeout):
        return run_stage(stage, site)


@contextmanager
def _heard(mark: Path, timeout: float) -> Iterator[None]:
    """Keep what goes to stderr, and the stack of a crash or of a stage at its timeout: who is killed tells nothing."""
    with mark.open("w", encoding="utf-8") as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        faulthandler.enable(file)
        faulthandler.dump_traceback_later(min(timeout, FOREVER), file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            os.dup2(stderr, 2)
            os.close(stderr)
            faulthandler.enable(2)
            mark.unlink(missing_ok=True)

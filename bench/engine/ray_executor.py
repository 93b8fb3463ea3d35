"""Stages under Ray, on this machine or on a cluster. The only file that imports ray."""

from __future__ import annotations

import faulthandler
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls_multiline
from bench.engine.executors import FOREVER, Done
from bench.engine.record import Record, Status
from bench.engine.store import writing
from bench.engine.worker import LOG_TAIL, Environment, run_stage, warm_up
from bench.graph.plan import Stage

RESTARTS = 2  # of a local Ray that died, in one run
PATIENCE = 300.0  # seconds in which a local Ray must start a stage that it has room for
SOCKET_PATH = 107  # bytes; Ray's longest socket is this much longer than its folder:
SOCKET_TAIL = len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0")
FOLDER = "hashdoor-ray-"  # followed by the driver's process number
ROOT = Path(__file__).resolve().parents[2]  # HashDoor's packages lie here
T = TypeVar("T")


@dataclass(frozen=True)
class Driver:
    """Where the driver runs. folder: its current folder. path: the folders in which it looks for modules."""

    folder: Path
    path: tuple[str, ...]

    @classmethod
    def here(cls) -> Driver:
        return cls(Path.cwd(), tuple(map(os.path.abspath, sys.path)))

    def enter(self) -> None:
        """Let a worker find the files and modules of a user's components where the driver finds them."""
        sys.path += [place for place in self.path if place not in sys.path]
        with suppress(OSError):  # another machine may not have it
            os.chdir(self.folder)


class RayGoneError(Exception):
    """The local Ray has died or does not answer."""


class RayExecutor:
    """Stages as Ray tasks.

    The driver owns retries (`max_retries=0`) and never submits more than there are slots, so that a task starts when it
    is submitted and the clock of its timeout is the stage's own. A local Ray that dies is started again; the stages
    that it ran count as killed.
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
        self._address, self._gpus_there, self._restarts = address, gpus, 0
        self._run = secrets.token_hex(4)  # tells this driver's marks from those of others, dead ones included
        self._gpu = gpus is not None or site.device.startswith("cuda")
        self._folder: Path | None = None
        self._driver = Driver.here()
        self._running: dict[Any, tuple[Stage, float, float | None]] = {}  # when submitted, and when started
        self._lost: list[Done] = []
        self._start()
        self.slots = workers or max(1, int(self._resources.get("CPU", 1)))
        self._remote = ray.remote(max_retries=0, max_calls=0)(run_task)

    def _start(self) -> None:
        ray, on_terminate, on_interrupt = self._ray, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        try:
            if self._address:
                with chdir(_first_on_path()):
                    ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
            else:
                self._folder = _session_folder()
                with chdir(_first_on_path()):
                    ray.init(
                        address="local", num_cpus=self._workers, num_gpus=self._gpus_there, include_dashboard=False,
                        log_to_driver=False, logging_level="ERROR", _temp_dir=str(self._folder),
                    )  # fmt: skip
        except Exception as error:  # noqa: BLE001 -- Ray raises many types where a machine does not let it start
            self._leave()
            raise UserError(
                f"Ray does not start ({(str(error).splitlines() or [type(error).__name__])[0]}): use --executor serial,"
                " or see that the folder for temporary files (TMPDIR) is writable and memory is free; for a cluster"
                " check --address (RAY_AUTH_MODE=token for one with a token)"
            ) from None
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGTERM, on_terminate), (signal.SIGINT, on_interrupt)):
                if handler is not None:
                    signal.signal(number, handler)  # Ray's own prints a stack and leaves the run's ends loose
        self._resources = ray.cluster_resources()

    def fits(self, stage: Stage) -> bool:
        running = [other for other, _, _ in self._running.values()]
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
        try:
            future = self._asked(
                lambda: self._remote.options(**options).remote(stage, self._site, self._mark(stage), self._driver)
            )
        except RayGoneError as error:
            self._restart(error)
            self._lost.append(Done(stage.key, None, Status.KILLED, str(error)))
            return
        self._running[future] = (stage, time.monotonic(), None)

    def poll(self, seconds: float) -> list[Done]:
        found, self._lost = self._lost, []
        if found or not self._running:
            return found
        try:
            return self._polled(seconds)
        except RayGoneError as error:
            lost = [
                Done(stage.key, None, Status.KILLED, str(error), self._last_words(stage))
                for stage, _, _ in self._running.values()
            ]
            self._running.clear()
            self._restart(error)
            return lost

    def _polled(self, seconds: float) -> list[Done]:
        running = list(self._running)
        self._asked(lambda: self._ray.wait(running, num_returns=1, timeout=seconds))
        # none that is done may run out of time
        ready, _ = self._asked(lambda: self._ray.wait(running, num_returns=len(running), timeout=0))
        found = [self._collect(future) for future in ready]
        now = time.monotonic()
        for future, (stage, submitted, started) in list(self._running.items()):
            if started is None:
                if self._has_started(stage):
                    self._running[future] = (stage, submitted, now)
                elif self._address is None and now - submitted > PATIENCE:
                    raise RayGoneError(f"Ray has not started it within {PATIENCE:g} s")
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
        stage = self._running[future][0]
        errors = self._ray.exceptions
        try:
            done = Done(stage.key, self._asked(lambda: self._ray.get(future)))
        except errors.OutOfMemoryError as error:
            done = Done(stage.key, None, Status.OOM, str(error).splitlines()[0], self._last_words(stage))
        except (
            errors.WorkerCrashedError,
            errors.RaySystemError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            why = f"its worker died: {str(error).splitlines()[0]}"
            done = Done(stage.key, None, Status.KILLED, why, self._last_words(stage))
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoreError):
                raise StoreError(str(error.cause)) from None
            raise
        del self._running[future]
        return done

    def _asked(self, call: Callable[[], T]) -> T:
        """What Ray answers; RayGoneError where its processes on this machine have died."""
        try:
            return call()
        except self._ray.exceptions.LocalRayletDiedError:
            raise RayGoneError("Ray's process on this machine was killed, perhaps for want of memory") from None
        except (ConnectionError, self._ray.exceptions.RpcError) as error:
            raise RayGoneError(f"Ray does not answer ({str(error).splitlines()[0]})") from None

    def _restart(self, reason: RayGoneError) -> None:
        """Start a local Ray anew; a cluster's end, or one death too many, ends the run."""
        self._leave()
        self._restarts += 1
        if self._address is not None or self._restarts > RESTARTS:
            raise UserError(
                f"{reason}: nothing that was finished is lost; the same command continues, with fewer --workers if"
                " memory is short, or with --executor serial"
            )
        self._start()

    def close(self) -> None:
        """Leave Ray, which ends the workers of this run. Cancelling a task that ends just then makes Ray abort."""
        self._running.clear()
        self._leave()

    def _leave(self) -> None:
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _first_on_path() -> Path:
    """The current folder when Ray starts: its workers look for modules there before they look anywhere else.

    A folder of the user's named `attacks` must not be taken for HashDoor's package.
    """
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    # what is installed is found anyway, and would hide modules of Python's own
    return ROOT / "reports" / "assets" if ROOT in installed else ROOT


def _session_folder() -> Path:
    """A new folder for Ray's sockets and logs, short enough for a socket's path; those of dead drivers are removed."""
    named = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    places = map(Path, (*named, tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108
    for base in dict.fromkeys(map(Path.absolute, places)):
        if len(os.fsencode(base)) + len(f"/{FOLDER}0000000-00000000") + SOCKET_TAIL > SOCKET_PATH:
            continue
        with suppress(OSError):
            for old in base.glob(f"{FOLDER}*"):
                if not _alive(old.name.removeprefix(FOLDER).partition("-")[0]):
                    shutil.rmtree(old, ignore_errors=True)
            return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=base))
    raise OSError("no folder for temporary files is writable and short enough for Ray's sockets")


def _alive(process: str) -> bool:
    """Whether a process of this number runs; what is no number may."""
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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


def run_task(stage: Stage, site: Environment, mark: Path, driver: Driver | None = None) -> Record:
    """Run a stage in a Ray worker. mark: a file that says that the stage has begun, and keeps stderr."""
    if driver is not None:
        driver.enter()
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

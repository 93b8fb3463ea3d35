"""Runs stages under Ray, on this machine or on a cluster. No other file imports ray."""

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
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from bench.api.errors import StoreError, UserError
from bench.api.untrusted import strip_controls_multiline
from bench.engine.executors import FOREVER, Done
from bench.engine.record import Record, Status
from bench.engine.store import writing
from bench.engine.worker import LOG_TAIL, Environment, run_stage, warm_up
from bench.graph.plan import Stage

RESTARTS = 2  # times that a run restarts a local Ray that died
PATIENCE = 300.0  # seconds until a stage that has room must have started under a local Ray
SOCKET_PATH = 107  # bytes; the longest path of a socket on Linux
# the longest path of a socket below Ray's folder
SOCKET_TAIL = len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0")
REASON = 300  # characters of Ray's own words
FOLDER = "hashdoor-ray-"  # followed by the driver's process number
ROOT = Path(__file__).resolve().parents[2]  # HashDoor's packages lie here
AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
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
    """Runs stages as Ray tasks.

    The driver decides about retries (`max_retries=0`). It never submits more stages than there are slots, so that a
    task starts at once and its timeout counts only its own time. A local Ray that dies is started again. The stages
    that it ran count as killed.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        workers: int | None = None,
        address: str | None = None,
        gpus: float | None = None,
    ) -> None:
        """Start a local Ray, or join the cluster at `address`.

        workers: number of stages at once; None: as many as cores or GPU shares allow. gpus: number of logical GPUs of a
        local Ray; None: all GPUs, if the device is one. UserError: Ray does not start, or the device has a number.
        """
        import ray

        if ":" in environment.device:
            raise UserError(
                f"--device {environment.device}: Ray assigns GPUs to stages itself",
                "give --device cuda, or --executor serial",
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray, self._environment, self._workers = ray, environment, workers
        self._address, self._gpus_there, self._restarts = address, gpus, 0
        self._run = secrets.token_hex(4)  # in the names of this driver's marks, which other drivers must not read
        self._gpu = gpus is not None or environment.device.startswith("cuda")
        self._folder: Path | None = None
        self._driver = Driver.here()
        self._gave_token = False
        self._running: dict[Any, tuple[Stage, float, float | None]] = {}  # stage, time submitted, time started
        self._lost: list[Done] = []
        self._start()
        self.slots = workers or max(1, int(self._resources.get("CPU", 1)))
        self._remote = ray.remote(max_retries=0, max_calls=0)(run_task)

    def _start(self) -> None:
        ray = self._ray
        try:
            where = {"address": self._address} if self._address else self._local()
            with _signals_deferred(), chdir(_first_on_path()):
                ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- Ray raises many types when it cannot start
            self._leave()
            raise UserError(f"Ray does not start ({_first_line(error)}): {_help(self._address)}") from None
        except BaseException:  # a request to stop
            self._leave()
            raise
        self._resources = ray.cluster_resources()

    def _local(self) -> dict[str, Any]:
        """The arguments of `ray.init` for a local Ray. It gets a folder and a token, which it would write to HOME."""
        self._folder = _session_folder()
        if os.environ.get(AUTH_MODE, "token") == "token" and not any(map(os.environ.get, (TOKEN, TOKEN_PATH))):
            os.environ[TOKEN] = _token()
            self._gave_token = True
        return {
            "address": "local", "num_cpus": self._workers, "num_gpus": self._gpus_there, "include_dashboard": False,
            "_temp_dir": str(self._folder),
        }  # fmt: skip

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
        self._mark(stage).unlink(missing_ok=True)  # a worker that died while running this stage may have left a mark
        options = {"num_cpus": self._cpus(stage), "num_gpus": self._gpus(stage), "name": stage.label}
        try:
            future = self._asked(
                lambda: self._remote.options(**options).remote(
                    stage, self._environment, self._mark(stage), self._driver
                )
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
                Done(stage.key, None, Status.KILLED, str(error), self._last_output(stage))
                for stage, _, _ in self._running.values()
            ]
            self._running.clear()
            self._restart(error)
            return lost

    def _polled(self, seconds: float) -> list[Done]:
        running = list(self._running)
        self._asked(lambda: self._ray.wait(running, num_returns=1, timeout=seconds))
        # every stage that has ended is collected first, so that none of them counts as timed out
        ready, _ = self._asked(lambda: self._ray.wait(running, num_returns=len(running), timeout=0))
        found = [self._collect(future) for future in ready]
        now = time.monotonic()
        for future, (stage, submitted, started) in list(self._running.items()):
            if started is None:
                if self._has_started(stage):
                    self._running[future] = (stage, submitted, now)
                elif self._address is None and now - submitted > PATIENCE:
                    raise RayGoneError(f"Ray has not started the stage within {PATIENCE:g} s")
            elif now - started > stage.timeout:
                self._ray.cancel(future, force=True)
                del self._running[future]
                why = f"ran longer than {stage.timeout:g} s and was killed"
                found.append(Done(stage.key, None, Status.TIMEOUT, why, self._last_output(stage)))
        return found

    def _mark(self, stage: Stage) -> Path:
        """The file that a worker creates when it starts a stage. The timeout counts from then on."""
        return self._environment.store / "running" / f"{stage.key}.{self._run}"

    def _has_started(self, stage: Stage) -> bool:
        return self._mark(stage).exists()

    def _last_output(self, stage: Stage) -> str:
        """The output of a worker that has died: `run_task` sends stderr to the mark."""
        mark = self._mark(stage)
        try:
            output = mark.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # the worker had not started the stage
            return ""
        mark.unlink(missing_ok=True)
        return strip_controls_multiline(output)[-LOG_TAIL:]

    def _collect(self, future: Any) -> Done:
        stage = self._running[future][0]
        errors = self._ray.exceptions
        try:
            done = Done(stage.key, self._asked(lambda: self._ray.get(future)))
        except errors.OutOfMemoryError as error:
            done = Done(stage.key, None, Status.OOM, str(error).splitlines()[0], self._last_output(stage))
        except (
            errors.WorkerCrashedError,
            errors.RaySystemError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            why = f"the stage's worker died: {str(error).splitlines()[0]}"
            done = Done(stage.key, None, Status.KILLED, why, self._last_output(stage))
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoreError):
                raise StoreError(str(error.cause)) from None
            raise
        del self._running[future]
        return done

    def _asked(self, call: Callable[[], T]) -> T:
        """The result of a call to Ray. RayGoneError if Ray's processes on this machine have died."""
        try:
            return call()
        except self._ray.exceptions.LocalRayletDiedError:
            raise RayGoneError("Ray's process on this machine was killed, perhaps because memory ran out") from None
        except (ConnectionError, self._ray.exceptions.RpcError) as error:
            raise RayGoneError(f"Ray does not answer ({str(error).splitlines()[0]})") from None

    def _restart(self, reason: RayGoneError) -> None:
        """Start a local Ray again. UserError if a cluster died, or after too many restarts."""
        self._leave()
        self._restarts += 1
        if self._address is not None or self._restarts > RESTARTS:
            raise UserError(
                f"{reason}: finished stages are kept",
                "start the same command again, with fewer --workers if memory is short, or with --executor serial",
            )
        self._start()

    def close(self) -> None:
        """Shut Ray down, which ends the workers of this run.

        Tasks are not cancelled first: Ray aborts the process if a task ends while it is being cancelled.
        """
        self._running.clear()
        self._leave()

    def _leave(self) -> None:
        self._ray.shutdown()
        if self._gave_token:
            os.environ.pop(TOKEN, None)
            self._gave_token = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Hold back a first request to stop until Ray has started, since a Ray that starts leaves processes behind.

    Ray would set handlers of its own, which end the process, so that the run could not close: it cannot here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        del frame
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    held = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}
    set_handler = signal.signal
    for number in held:
        set_handler(number, note)
    signal.signal = _unchanged  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler
        for number, handler in held.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])


def _unchanged(number: int, handler: object) -> object:
    """In place of `signal.signal`: sets no handler."""
    del handler
    return signal.getsignal(number)


def _first_on_path() -> Path:
    """The current folder when Ray starts: its workers look for modules there before they look anywhere else.

    A folder of the user's named `attacks` must not be taken for HashDoor's package.
    """
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    # what is installed is found anyway, and would hide modules of Python's own
    return ROOT / "reports" / "assets" if ROOT in installed else ROOT


@cache
def _token() -> str:
    """A token for local Rays. One per process, because Ray keeps the first one that a process uses."""
    return secrets.token_hex(32)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:REASON]


def _help(address: str | None) -> str:
    """The end of the line about a Ray that does not start."""
    if address:
        return (
            "check --address; a cluster with a token needs RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or the token's file"
            " in HOME"
        )
    given = [name for name in (AUTH_MODE, TOKEN, TOKEN_PATH, "RAY_TMPDIR") if name in os.environ]
    unset = f", or unset {' and '.join(given)}" if given else ""
    return (
        "--executor serial works without Ray; Ray needs free memory, a folder for temporary files (TMPDIR) that is"
        " writable, short and not full, and a HOME that can be written or"
        f" RAY_AUTH_TOKEN{unset}"
    )


def _session_folder() -> Path:
    """A new folder for Ray's sockets and logs, whose path is short enough for sockets.

    Folders of drivers that have died are removed. OSError if no folder is writable and short enough.
    """
    named = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    places = map(Path, (*named, tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108
    for base in dict.fromkeys(map(Path.absolute, places)):
        if len(os.fsencode(base)) + len(f"/{FOLDER}0000000-00000000") + SOCKET_TAIL > SOCKET_PATH:
            continue
        with suppress(OSError):
            for old in base.glob(f"{FOLDER}*"):
                if not (_alive(old.name.removeprefix(FOLDER).partition("-")[0]) or _in_use(old)):
                    shutil.rmtree(old, ignore_errors=True)
            return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=base))
    raise OSError("no folder for temporary files is writable and short enough for Ray's sockets")


def _in_use(folder: Path) -> bool:
    """Whether a process of a Ray runs that was started with this folder: its workers may still finish stages."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(folder.name) in command.read_bytes():
                return True
    return False


def _alive(process: str) -> bool:
    """Whether a process with this number runs; True for a text that is no number."""
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


def reachable(address: str, seconds: float = 5.0) -> None:
    """UserError if nothing listens at an address. Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # Ray resolves "auto" and other words
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error})",
            "start one with `ray start --head`, or leave --address out",
        ) from None


def run_task(stage: Stage, environment: Environment, mark: Path, driver: Driver | None = None) -> Record:
    """Run a stage in a Ray worker. mark: a file that is created when the stage starts, and receives stderr."""
    if driver is not None:
        driver.enter()
    if not environment.store.is_dir():
        raise StoreError(
            f"the machine {socket.gethostname()} does not see the store '{environment.store}'",
            "give a --store in a folder that all nodes share",
        )
    warm_up(stage)
    with writing(environment.store):
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    with _stderr_kept(mark, stage.timeout):
        return run_stage(stage, environment)


@contextmanager
def _stderr_kept(mark: Path, timeout: float) -> Iterator[None]:
    """Send stderr to the file `mark`, and the stack at a crash or timeout, since a killed worker cannot report them."""
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

"""The real command line in processes of its own, and everything that such a process leaves behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import main

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds; Ray takes its time to start on a busy machine

# 20 stages, each a second at most; models learn enough for the boards to have numbers
SUITE = """
name = "faults"
[axes]
datasets = [{ name = "digits", train = 200, query = 60 }]
backbones = [{ name = "convnet", width = 4 }]
attacks = ["none", "badnets"]
defenses = ["none", { name = "fine_pruning", steps = 2 }]
targets = [0]
bits = [12]
[training]
optimizer = "adam"
lr = 2e-2
weight_decay = 0
epochs = 10
"""


def bench(*arguments: object) -> tuple[int, str, str]:
    """A command in this process: exit code, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    return int(caught.value.code or 0), out.getvalue(), err.getvalue()


def run(suite: Path, store: Path, *options: object) -> tuple[int, str, str]:
    """A run in this process."""
    return bench("run", "--suite", suite, "--store", store, "--device", "cpu", "--executor", "serial", *options)


def board(store: Path) -> str:
    """The boards of the last run, as every reader of the store gets them."""
    code, out, err = bench("leaderboard", "--store", store, "--format", "json")
    assert code == 0, err
    return out


def verified(store: Path) -> None:
    """Every number is what the stored codes give."""
    code, out, err = bench("verify", "--store", store)
    assert code == 0, out + err


def finished(store: Path) -> dict[str, bytes]:
    """The records of stages that have a result, byte for byte."""
    files = {path.stem: path.read_bytes() for path in store.glob("records/*.json")}
    return {key: content for key, content in files.items() if json.loads(content)["status"] == "ok"}


def unfinished(store: Path) -> list[str]:
    """Status, label and reason of every stage that ended without a result."""
    found = [json.loads(path.read_bytes()) for path in sorted(store.glob("records/*.json"))]
    return [f"{one['status']}: {one['label']}: {one['reason']}" for one in found if one["status"] != "ok"]


def sober(content: bytes) -> dict:
    """A record without time and host, and without what was committed while tests ran."""
    record = json.loads(content)
    del record["cost"], record["provenance"]["git"], record["checksum"]
    return record


def results(records: dict[str, bytes]) -> dict[str, dict]:
    return {key: sober(content) for key, content in records.items()}


def until(met: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait, and say what for where it does not come."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def session_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


def family(leader: int) -> list[int]:
    """A session's processes, wherever their parents are."""
    return [pid for folder in Path("/proc").glob("[0-9]*") if session_of(pid := int(folder.name)) == leader]


def end(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a session and all that is left of the session."""
    for pid in family(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself
            continue
    process.wait()
    until(lambda: not any(map(alive, family(process.pid))), "processes to end", 30)


class Driver:
    """`bench run` in a session of its own, in which Ray and its workers stay: all of it can be found and ended."""

    def __init__(self, suite: Path, store: Path, *options: object, executor: str = "ray", **environment: str) -> None:
        workers = () if executor == "serial" or "--address" in options else ("--workers", 2)
        command = ["run", "--suite", suite, "--store", store, "--device", "cpu", "--executor", executor]
        self.folder = Path(tempfile.mkdtemp(prefix="hd"))  # Ray's sockets need a short path
        self._said, self._told = self.folder / "out", self.folder / "err"
        with self._said.open("w") as out, self._told.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench", *map(str, [*command, *workers, *options])],
                cwd=ROOT, stdout=out, stderr=err, start_new_session=True,
                env={**os.environ, "RAY_TMPDIR": str(self.folder), **environment},
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._said.read_text()

    @property
    def err(self) -> str:
        return self._told.read_text()

    @property
    def planned(self) -> int | None:
        """How many stages it said that it has to run; None before it said so."""
        words = self.err.partition(" stages to run")
        return int(words[0].split()[-1]) if words[1] else None

    def kill(self) -> None:
        """As the kernel does: the driver alone, without a word to anyone."""
        self.process.kill()
        self.process.wait()

    def finish(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        """End what is left, frozen workers included."""
        end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

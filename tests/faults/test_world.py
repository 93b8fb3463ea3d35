"""Faults of the world: one line, the documented exit code, nothing lost, and the same command continues."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults._bench import ROOT, until

pytestmark = pytest.mark.long

TINY = """
name = "tiny"
[axes]
datasets = [{ name = "digits", train = 150, query = 60 }]
backbones = [{ name = "convnet", width = 4 }]
attacks = ["none", "badnets"]
defenses = ["none"]
bits = [12]
targets = [0]
[training]
optimizer = "adam"
lr = 1e-2
weight_decay = 0
epochs = 1
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "tiny.toml").write_text(TINY)

    def make(executor: str = "serial") -> list[str]:
        words = ["run", "--suite", str(tmp_path / "tiny.toml"), "--store", str(tmp_path / "store"), "--device", "cpu"]
        return [sys.executable, "-m", "bench", *words, "--executor", executor]

    return make


def ended(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    given = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 300}
    return subprocess.run(words, check=False, **(given | options))


def records(place: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in (place / "store" / "records").glob("*.json")]


def stepping(tmp_path: Path, clock: str) -> dict[str, str]:
    """An environment in which `time.time` is what `clock` says of the true time."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
        import time
        _true, _start = time.time, time.time()
        time.time = lambda: {clock}
    """)
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.mark.parametrize(
    "clock",
    ["_start - 3 * (_true() - _start)", pytest.param("-1e8 + _true() - _start", marks=pytest.mark.slow)],
    ids=["back", "1966"],
)
def test_a_clock_that_steps_back_loses_nothing(command, tmp_path: Path, clock: str) -> None:
    done = ended(command(), env=stepping(tmp_path, clock))
    assert done.returncode == 0, done.stderr
    assert all(record["cost"]["seconds"] >= 0 and record["cost"]["started"] >= 0 for record in records(tmp_path))
    again = ended(command())
    assert "Stages: 0 run" in again.stdout


def test_a_file_that_may_not_grow_is_no_failure_of_a_stage(command, tmp_path: Path) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    done = ended(command(), preexec_fn=small)
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(record["status"] == "ok" for record in records(tmp_path))
    assert ended(command()).returncode == 0


@pytest.mark.parametrize("stream", ["stdout", pytest.param("stderr", marks=pytest.mark.slow)])
def test_output_that_cannot_be_written_does_not_stop_a_run(command, tmp_path: Path, stream: str) -> None:
    with Path("/dev/full").open("w") as full:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "capture_output": False} | {stream: full}
        done = ended(command(), **pipes)
    assert done.returncode == (2 if stream == "stdout" else 0), done.stderr
    if stream == "stdout":
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    assert "Stages: 0 run" in ended(command()).stdout


@pytest.mark.slow
def test_a_reader_that_goes_away_changes_no_exit_code(command, tmp_path: Path) -> None:
    done = ended(["bash", "-c", f"{' '.join(command())} | head -1; echo ${{PIPESTATUS[0]}}"])
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr.count("Traceback") == 0
    wrong = [sys.executable, "-m", "bench", "leaderboard", "--store", str(tmp_path / "store"), "--by", "nothing"]
    done = ended(["bash", "-c", f"{' '.join(wrong)} | true; echo ${{PIPESTATUS[0]}}"])
    assert done.stdout.splitlines()[-1] == "2"


@pytest.mark.slow
def test_a_terminal_of_ascii_prints_boards(command, tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ended(command(), env=environment)
    assert done.returncode == 0, done.stderr
    assert "badnets" in done.stdout


@pytest.mark.slow
def test_boards_are_printed_in_ascii_in_every_format(command, tmp_path: Path) -> None:
    assert ended(command()).returncode == 0
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    key = next(record["key"] for record in records(tmp_path) if record["stage"] == "measure")
    reading = [["show", key], *(["leaderboard", "--format", form] for form in ("rich", "markdown", "csv", "json"))]
    for words in reading:
        done = ended([*command()[:3], *words, "--store", str(tmp_path / "store")], env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert "badnets" in done.stdout or words[0] == "show"


@pytest.mark.slow
def test_the_closing_command_can_be_pasted(command, tmp_path: Path) -> None:
    words = [word.replace("/store", "/my 'own' runs") for word in command()]
    done = ended(words)
    (pasted,) = re.findall(r"`(python -m bench leaderboard[^`]*)`", done.stdout)
    again = ended([sys.executable, *shlex.split(pasted)[1:]])
    assert again.returncode == 0, again.stderr
    assert "badnets" in again.stdout


@pytest.mark.parametrize("gigabytes", [1, 3])
@pytest.mark.parametrize(("kind", "name"), [(resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")])
def test_too_little_memory_is_one_line(command, gigabytes: int, kind: int, name: str) -> None:
    limit = (gigabytes * 10**9,) * 2
    done = ended(command(), preexec_fn=lambda: resource.setrlimit(kind, limit))
    assert done.returncode == 2, done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr


# Ray


def sessions() -> set[Path]:
    """Ray's folders of drivers that have ended."""
    found = {path for base in ("/tmp", "/var/tmp", "/dev/shm") for path in Path(base).glob("hashdoor-ray-*")}
    return {path for path in found if not Path("/proc", path.name.split("-")[2]).exists()}


@pytest.mark.parametrize(
    "folder", ["long", *(pytest.param(how, marks=pytest.mark.slow) for how in ("missing", "not writable"))]
)
def test_ray_starts_whatever_tmpdir_and_home_are(command, tmp_path: Path, folder: str) -> None:
    place = tmp_path / ("x" * 100)
    if folder == "long":
        place.mkdir()
    named = "/proc" if folder == "not writable" else str(place)  # not even root makes a file there
    before = sessions()
    done = ended(command("ray"), env={**os.environ, "TMPDIR": named, "RAY_TMPDIR": named, "HOME": f"{named}/home"})
    assert done.returncode == 0, done.stderr
    assert sessions() <= before


def started(command: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    """A run under Ray in a session of its own, in which stages have ended."""
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- the test has one thread
    )  # fmt: skip
    until(lambda: len(list((tmp_path / "store" / "records").glob("*.json"))) >= 2 or run.poll() is not None, "records")
    return run


def of_session(run: subprocess.Popen[str], word: str = "") -> list[int]:
    """Processes that the run has started, by a word of their command lines; it may have ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not dead and f"hashdoor-ray-{run.pid}-" in line and word in line:
            found.append(int(folder.name))
    return found


def test_ray_that_does_not_start_is_one_line(command, tmp_path: Path) -> None:
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}
    done = ended(command("ray"), env={**os.environ, **given})
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "--executor serial" in line
    assert "unset RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH" in line
    assert "Traceback" not in done.stderr
    assert ended(command()).returncode == 0


@pytest.mark.slow
def test_a_raylet_that_is_killed_is_started_again(command, tmp_path: Path) -> None:
    run = started([*command("ray"), "--workers", "1"], tmp_path)
    for process in of_session(run, "raylet/raylet"):
        os.kill(process, signal.SIGKILL)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "2 ok" in out
    assert "trying again" in err
    assert "Traceback" not in err
    until(lambda: not of_session(run), "Ray's processes to end", 60)


@pytest.mark.slow
def test_impatient_interrupts_end_a_run_as_one_does(command, tmp_path: Path) -> None:
    before = sessions()
    run = started(command("ray"), tmp_path)
    for _ in range(3):
        os.kill(run.pid, signal.SIGINT)
        time.sleep(0.2)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "same command again" in err
    assert "Traceback" not in err
    until(lambda: not of_session(run), "Ray's processes to end", 60)
    assert sessions() <= before

"""Suites, undisturbed runs to compare with, and drivers that are ended with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults._bench import SUITE, Driver, board, finished, run

MOODY = '''
"""A repair that fails in every way, until a file named `well` lies in its folder."""
import ctypes, os, signal, sys, time
from pathlib import Path
import torch
from bench.api.defense import *

@defense
class Moody(Repair):
    what: str = "fine"
    folder: str = ""

    def repair(self, case, rng):
        folder = Path(self.folder)
        well = self.what == "fine" or (folder / "well").exists()
        getattr(self, "fine" if well else self.what)(case.model, folder)
        return case.model

    def fine(self, model, folder):
        pass

    def fail(self, model, folder):
        raise ValueError("out of sorts")

    def die(self, model, folder):
        print("these are my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self, model, folder):
        ctypes.CDLL(None).pause()  # no Python code runs in there

    def nan(self, model, folder):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))

    def grow(self, model, folder):
        held = []
        while True:
            held.append(bytearray(os.urandom(1) * (64 << 20)))
            time.sleep(0.02)

    def once(self, model, folder):
        """Wait the first time, for whoever wants to do something to the process; then differ."""
        if (folder / "pid").exists():
            return
        (folder / "pid.new").write_text(str(os.getpid()))
        (folder / "pid.new").rename(folder / "pid")
        while not (folder / "go").exists():
            pass
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.25)
'''


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suites") / "faults.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def whole(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("whole") / "store"
    code, _, err = run(suite, store)
    assert code == 0, err
    return store


@pytest.fixture(scope="session")
def undisturbed(whole: Path) -> tuple[str, dict[str, bytes]]:
    """Board and records of that run."""
    return board(whole), finished(whole)


@pytest.fixture
def drivers() -> Iterator[Callable[..., Driver]]:
    """Starts drivers; what they leave is ended after the test."""
    made: list[Driver] = []

    def start(*arguments: object, **options: str) -> Driver:
        made.append(Driver(*arguments, **options))
        return made[-1]

    yield start
    for driver in made:
        driver.close()


@pytest.fixture
def moody(tmp_path: Path) -> tuple[Path, Path]:
    """A plugin whose repair does what its parameter says, and the folder in which it leaves and finds files."""
    path, folder = tmp_path / "moody.py", tmp_path / "moods"
    folder.mkdir()
    path.write_text(MOODY)
    return path, folder

"""Variables that other programs need and that numba or Ray read: one line and exit code 2, before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest


def bench(*words: str, **changes: str) -> tuple[int, str]:
    """A command in its own process: exit code and the lines on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], env=os.environ | changes, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words", [["run", "--suite", "smoke"], ["plan"], ["doctor"], ["runs"], ["score", "a", "b"], []]
)
def test_a_current_folder_that_was_deleted_is_one_line(tmp_path: Path, words: list[str]) -> None:
    (folder := tmp_path / "gone").mkdir()
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$0" -m bench "$@"', sys.executable, *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    problem, hint = done.stderr.splitlines()
    assert problem.startswith("error: the current folder cannot be used")
    assert hint == "hint: change to another folder"


def test_closed_streams_are_no_error() -> None:
    command = 'exec "$0" -m bench list suites >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable], check=False).returncode == 0


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    np.savez(tmp_path / "codes.npz", codes=np.eye(4) - 0.5, labels=np.arange(4) % 2)
    return tmp_path / "codes.npz"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        pytest.param("NUMBA_THREADING_LAYER", "tbb", "pip install tbb",
                     marks=pytest.mark.skipif(find_spec("tbb") is not None, reason="tbb is installed")),
        ("NUMBA_THREADING_LAYER", "fast", "unset NUMBA_THREADING_LAYER"),
        ("NUMBA_NUM_THREADS", "0", "unset NUMBA_NUM_THREADS"),
    ],
)  # fmt: skip
def test_threads_that_numba_cannot_start_are_one_line(codes: Path, variable: str, value: str, words: str) -> None:
    code, said = bench("score", str(codes), str(codes), **{variable: value})
    assert (code, said.count("\n")) == (2, 1)
    assert f"{variable}={value}" in said
    assert words in said


def test_a_run_says_so_before_it_starts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, said = bench("run", "--suite", "smoke", "--store", str(store), NUMBA_THREADING_LAYER="fast")
    assert (code, said.count("\n")) == (2, 1)
    assert not store.exists()

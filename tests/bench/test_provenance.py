"""A record says which versions, machine and commit it comes from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from bench import metrics
from bench.engine.provenance import PACKAGES, git, installed, provenance

ROOT = Path(__file__).parents[2]


def test_versions_are_those_of_this_process() -> None:
    made = provenance()
    assert (made.python, made.metrics) == (platform.python_version(), metrics.VERSION)
    assert made.packages.keys() == set(PACKAGES)
    assert made.packages["torch"] == version("torch")
    assert installed("no-such-package") is None


def test_the_commit_is_that_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    found = git()
    assert found is not None
    assert len(found.commit) == len(head.strip())

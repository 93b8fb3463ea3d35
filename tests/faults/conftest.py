"""Suites, undisturbed runs to compare with, and drivers that are ended with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.conftest import TROUBLE
from tests.faults._bench import SUITE, Driver, board, finished


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suites") / "faults.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def undisturbed(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    """Board and records of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    driver = Driver(suite, store, executor="serial")
    try:
        assert driver.finish() == 0, driver.err
    finally:
        driver.close()
    return board(store), finished(store)


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
def trouble_file(tmp_path: Path) -> Path:
    """A plugin whose data misbehave on demand."""
    path = tmp_path / "trouble.py"
    path.write_text(TROUBLE)
    return path

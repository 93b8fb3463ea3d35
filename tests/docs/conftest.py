"""A folder like a reader's: a small store that the README's own command made, and the files that commands name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from bench.engine.store import Store
from tests.bundles import committed
from tests.docs._shown import made
from tests.docs._small import (
    STORE,
    birds,
    block_with,
    commands,
    done,
    own_data,
    parquet,
    smaller,
    suite_block,
    words_of,
)


@dataclass(frozen=True)
class Place:
    folder: Path
    printed: str  # what the run said


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("reader")
    before = Path.cwd()
    os.chdir(folder)
    try:
        (first,) = (one for one in commands(block_with("pip install -e . &&")) if one.startswith("python -m bench"))
        printed = done(smaller(words_of(first)[3:], STORE))
        committed(Store(Path("runs")))  # a checkout in which somebody works cannot publish
        shutil.copytree("runs", "again")
        done(["publish", "--out", "bundle.zip", "--evidence"])
        for kind, name in made():
            done(["new", kind, name])
    finally:
        os.chdir(before)
    (folder / "my.toml").write_text(suite_block())
    (folder / "my_metric.py").write_text(block_with("@metric(").text)
    (folder / "my_board.py").write_text(block_with("@board(").text)
    rng = np.random.default_rng(0)
    for name, size in (("query", 20), ("database", 100)):
        np.savez(folder / f"{name}.npz", codes=rng.normal(size=(size, 32)), labels=rng.integers(0, 4, size))
    own_data(folder / "data")
    birds(folder / "data" / "birds.zip")
    shutil.unpack_archive(folder / "data" / "birds.zip", folder / "my_birds")
    parquet(folder / "my_parquet")
    return Place(folder, printed)


@pytest.fixture
def kernels(place: Place) -> Path:
    """As `bench kernels --format json` prints it, measured on few codes."""
    from bench.kernels import kernel_benchmark

    path = place.folder / "kernels.json"
    machine = {"processor": "here", "cores": 1, "packages": {}}
    path.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in kernel_benchmark.packing(3, 500)]}))
    return path

"""The gate's verdicts, and that it sees a kernel that became slower."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def gate():
    spec = importlib.util.spec_from_file_location("gate", HERE / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interval_holds_the_median_as_often_as_it_says(gate):
    import numpy as np

    draws = np.random.default_rng(0).standard_normal((2000, 15))
    held = [low <= 0 <= high for low, _, high in (gate.interval(list(row)) for row in draws)]
    assert 0.985 < np.mean(held) <= 1


@pytest.mark.parametrize(
    ("tree", "twin", "slower"),
    [
        ([1.5] * 15, [1.0] * 15, 1),
        ([1.05] * 15, [1.0] * 15, 0),  # less than the limit
        ([0.9, 1.6] * 8, [1.0] * 16, 0),  # undecided
        ([1.5] * 15, [1.6, 0.9] * 8, 0),  # the base differs as much from itself
        ([0.5] * 15, [1.0] * 15, 0),
    ],
)
def test_only_what_is_beyond_noise_fails(gate, capsys, tree, twin, slower):
    assert gate.report({"case": {"tree": tree, "twin": twin}, "new": None}) == slower
    printed = capsys.readouterr().out
    assert ("SLOWER" in printed) == bool(slower)
    assert "new                      not comparable" in printed


def test_a_revision_that_is_not_there_is_not_comparable(gate, capsys):
    assert gate.main(["--against", "no-such-revision"]) == 2
    assert "not comparable: no-such-revision" in capsys.readouterr().out


@pytest.mark.slow
def test_a_slower_tree_is_seen(gate, tmp_path, monkeypatch, capsys):
    """The same code twice, of which one packs everything four times."""
    base, tree = tmp_path / "base", tmp_path / "tree"
    for folder in (base, tree):
        shutil.copytree(HERE.parents[1] / "hashing", folder / "hashing")
        shutil.copytree(HERE.parents[1] / "bench", folder / "bench")
    file = tree / "hashing/codes.py"
    text = file.read_text()
    assert "def pack(" in text
    file.write_text(
        text.replace("def pack(", "def _pack(") + "\n\ndef pack(x):\n    return [_pack(x) for _ in range(4)][0]\n"
    )
    monkeypatch.setattr(gate, "CASES", ("distances", "packing"))
    workers = {}
    for name, folder in {"tree": tree, "base": base, "twin": base}.items():
        cache = tmp_path / f"cache-{name}"
        cache.mkdir()
        workers[name] = gate.Worker(folder, cache)
    try:
        assert gate.report(gate.compare(workers, 11)) == 1
    finally:
        for worker in workers.values():
            worker.close()
    lines = capsys.readouterr().out.splitlines()
    assert [("SLOWER" in line, line.split()[0]) for line in lines] == [(False, "distances"), (True, "packing")]

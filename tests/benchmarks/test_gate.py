"""The gate's verdicts, and that it sees a kernel that became slower."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
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
    assert gate.report({"case": {"tree": tree, "twin": twin}, "new": "base: KeyError: 'new'"}) == slower
    printed = capsys.readouterr().out
    assert ("SLOWER" in printed) == bool(slower)
    assert "KeyError" in next(line for line in printed.splitlines() if line.startswith("new"))


def test_a_broken_tree_fails_and_a_broken_base_does_not(gate, capsys):
    class Fake:
        def __init__(self, answer):
            self.answer = answer

        def ask(self, case, *, first=False):
            return self.answer

    good, bad = Fake({"seconds": 1.0, "result": 2.0}), Fake({"broken": "ImportError: no pack"})
    for broken, red in (("tree", len(gate.CASES)), ("base", 0), ("twin", 0)):
        workers = {name: bad if name == broken else good for name in ("tree", "base", "twin")}
        assert gate.report(gate.compare(workers, 2)) == red
        assert ("BROKEN" in capsys.readouterr().out) == bool(red)


def test_another_result_is_named(gate, capsys):
    answers = {"tree": 2.0, "base": 3.0, "twin": 3.0}

    class Fake:
        def __init__(self, result):
            self.result = result

        def ask(self, case, *, first=False):
            return {"seconds": 1.0, **({"result": self.result} if first else {})}

    gate.compare({name: Fake(result) for name, result in answers.items()}, 1)
    assert [line for line in capsys.readouterr().out.splitlines() if "another" in line and line.startswith(gate.CASES)]


def test_a_worker_answers_with_what_is_broken(gate, tmp_path):
    tree = tmp_path / "tree"
    (tree / "hashing").mkdir(parents=True)
    (tree / "hashing" / "__init__.py").touch()  # without it, a HashDoor on PYTHONPATH would be found instead
    (tree / "hashing" / "codes.py").write_text("this is no Python")
    worker = gate.Worker(tree, tmp_path)
    try:
        assert "SyntaxError" in worker.ask("packing", first=True)["broken"]
    finally:
        worker.close()


def test_the_base_is_what_git_says(gate, tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "a")
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "-qm", text)
    before, head = (gate.git("rev-parse", name, root=tmp_path) for name in ("HEAD~1", "HEAD"))
    assert gate.base_revision(None, tmp_path) == before
    assert gate.base_revision("HEAD", tmp_path) == head
    assert gate.base_revision("nothing", tmp_path) is None
    assert (gate.unpacked(before, tmp_path / "base", tmp_path) / "file").read_text() == "one"
    (tmp_path / "file").write_text("three")
    assert gate.base_revision(None, tmp_path) == head
    git("checkout", "-q", "--", "file")
    git("update-ref", "refs/remotes/origin/main", before)
    assert gate.base_revision(None, tmp_path) == before


@pytest.mark.slow
def test_a_slower_tree_is_seen(gate, tmp_path, capsys):
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
    workers = {}
    for name, folder in {"tree": tree, "base": base, "twin": base}.items():
        cache = tmp_path / f"cache-{name}"
        cache.mkdir()
        workers[name] = gate.Worker(folder, cache)
    try:
        assert gate.report(gate.compare(workers, 25, ("distances", "packing"))) == 1
    finally:
        for worker in workers.values():
            worker.close()
    lines = capsys.readouterr().out.splitlines()
    assert [("SLOWER" in line, line.split()[0]) for line in lines] == [(False, "distances"), (True, "packing")]

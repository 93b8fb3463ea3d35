"""A package of somebody else's, installed beside HashDoor: it is found, runs, is ranked, and breaks with a word."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "plugin"
SMALL = ["--suite", "smoke", "--set", "training.epochs=6", "--executor", "serial"]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own, without dependencies: HashDoor is there already."""
    folder = tmp_path_factory.mktemp("packages")
    source = folder / "source"
    shutil.copytree(PACKAGE, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder / "site"), str(source)], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(installed, tmp_path / "site"))


@pytest.fixture
def bench(site: Path, tmp_path: Path) -> Command:
    """`python -m bench` in an empty folder, with the package on the path."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, *(words if words[0] == "-m" else ("-m", "bench", *words))]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
        )

    return run


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a user's mistake."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_it_is_listed_runs_beside_the_built_ins_and_stands_on_the_board(bench: Command) -> None:
    listed = json.loads(bench("list", "attacks", "--format", "json").stdout)[0]["rows"]
    (mine,) = [row for row in listed if row["name"] == "checkerboard"]
    assert mine["from"] == "package hashdoor-example 1.2.3"
    assert mine["what it does"].startswith("Lay a faint checkerboard")
    axes = ["--set", "attacks=none,badnets,checkerboard", "--set", "defenses=none,blur"]
    done = bench("run", *SMALL, *axes)
    assert done.returncode == 0, done.stderr[-2000:]
    boards = json.loads(bench("leaderboard", "--format", "json").stdout)
    attacks = {row["attack"]: row for row in boards[0]["rows"]}
    assert set(attacks) == {"none", "badnets", "checkerboard"}
    assert attacks["checkerboard"]["access"] == "dirty-label"
    assert attacks["checkerboard"]["poisons"] > 0
    (detectors,) = [board for board in boards if board["title"].startswith("Input detectors")]
    assert {row["input detector"] for row in detectors["rows"]} == {"blur"}


def test_its_own_tests_are_three_lines_and_pass(bench: Command) -> None:
    done = bench("-m", "pytest", "-q", "-p", "no:cacheprovider", str(PACKAGE / "test_conformance.py"))
    assert done.returncode == 0, done.stdout[-2000:]
    assert "passed" in done.stdout
    assert len((PACKAGE / "test_conformance.py").read_text().split('"""')[2].strip().splitlines()) == 4


def entry_points(site: Path) -> Path:
    (path,) = site.glob("*.dist-info/entry_points.txt")
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


ATTACK = "hashdoor_example/checkerboard.py"
BROKEN = {
    "no such module": ("entry_points", "hashdoor_example.checkerboard", "hashdoor_example.chekerboard",
                       "does not load: no module named 'hashdoor_example.chekerboard'"),
    "no such package": ("entry_points", "hashdoor_example.checkerboard", "hashdoor_exmple.checkerboard",
                        "does not load: ModuleNotFoundError: No module named 'hashdoor_exmple'"),
    "raises on import": (ATTACK, "import torch\n", "import torch\nimport nowhere\n",
                         "does not load: ModuleNotFoundError: No module named 'nowhere'"),
    "is no Python": (ATTACK, "import torch\n", "import torch\ndef (:\n", "does not load: SyntaxError"),
    "holds no component": (ATTACK, "@attack\n", "", "must define exactly one of the attacks, found 0"),
    "leaves a method out": (ATTACK, "def apply_trigger(", "def aply_trigger(", "does not define apply_trigger"),
    "has an untyped default": (ATTACK, "strength: PositiveShare = 0.25", "strength: PositiveShare = 7",
                               "strength"),
}  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [how if how.startswith("no such m") else pytest.param(how, marks=pytest.mark.slow) for how in BROKEN],
)
def test_a_broken_package_is_named_with_what_is_wrong(how: str, bench: Command, site: Path) -> None:
    where, old, new, words = BROKEN[how]
    change(entry_points(site) if where == "entry_points" else site / where, old, new)
    done = bench("run", *SMALL, "--set", "attacks=none,checkerboard")
    line = error_of(done)
    assert "checkerboard" in line
    assert words in line
    assert (
        "package hashdoor-example 1.2.3" in line
        or words in {"strength", "does not define apply_trigger"}
        or "exactly" in line
    )
    fine = bench("run", *SMALL, "--set", "attacks=none,badnets")
    assert fine.returncode == 0, "what nobody asked for stops nothing"


def test_a_name_that_is_taken_is_named_with_both_owners(bench: Command, site: Path) -> None:
    change(entry_points(site), "checkerboard =", "badnets =")
    line = error_of(bench("list", "attacks"))
    assert {"'badnets':", "hashdoor-example"} <= {*line.split()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("        del target, trigger\n", "        raise RuntimeError('boom')\n", "RuntimeError: boom"),
        ("return images + self.strength * (board - images)", "return images[:, :, :2]", ""),
        ("return Threat.TRAIN_SET | Threat.LABELS", "return Threat.TRAIN_SET", "Threat.LABELS"),
    ],
    ids=["raises", "wrong shape", "does more than it says"],
)
def test_one_that_breaks_at_work_is_a_record_and_the_rest_goes_on(
    old: str, new: str, reason: str, bench: Command, site: Path
) -> None:
    change(site / ATTACK, old, new)
    done = bench("run", *SMALL, "--set", "attacks=none,badnets,checkerboard", "--set", "defenses=none")
    assert done.returncode == 1, done.stderr[-2000:]
    boards = json.loads(bench("leaderboard", "--format", "json").stdout)
    (lost,) = [board for board in boards if board["title"] == "No result"]
    (row,) = lost["rows"]
    assert (row["status"], row["which"]) == ("failed", "attack checkerboard")
    assert reason in row["reason"]
    rows = {row["attack"]: row for row in boards[0]["rows"]}
    assert rows["badnets"]["cells"] == "1/1"

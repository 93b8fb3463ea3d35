"""A user's folder or file with the name of a package of HashDoor's: the same code everywhere, or one line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.faults.test_world import TINY

ROOT = Path(__file__).parents[2]
PACKAGES = ("attacks", "defenses", "hashing", "reports", "suites")
EDITABLE = """
# as an editable install: asked after all folders on the path, and before another editable install
import importlib.machinery, importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and name in {packages!r}:
            folder = {root!r} + "/" + name
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.insert(sys.meta_path.index(importlib.machinery.PathFinder) + 1, Finder)
"""


@pytest.fixture(params=["on the path", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds HashDoor: on PYTHONPATH, or as an editable install."""
    site = tmp_path / "site"
    site.mkdir()
    text = EDITABLE.format(packages=[*PACKAGES, "bench"], root=str(ROOT))
    (site / "sitecustomize.py").write_text(textwrap.dedent(text) if request.param == "editable" else "")
    return {**os.environ, "PYTHONPATH": str(site if request.param == "editable" else ROOT)}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """The command as pip installs it."""
    place = tmp_path / "bin" / "hashdoor"
    place.parent.mkdir()
    place.write_text("import sys\nfrom bench.__main__ import main\nsys.exit(main())\n")
    return [sys.executable, str(place)]


def put(work: Path, name: str, kind: str) -> None:
    """A plain folder, a package or a module of this name."""
    if kind == "module":
        (work / f"{name}.py").write_text("mine = 1\n")
        return
    (work / name).mkdir()
    (work / name / "notes.txt").write_text("mine")
    if kind == "package":
        (work / name / "__init__.py").touch()


def ended(words: list[str], work: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("kind", ["folder", "package", "module"])
def test_python_m_bench_lists_what_is_shipped_or_names_what_is_in_the_way(installed, work, name, kind) -> None:
    put(work, name, kind)
    done = ended([sys.executable, "-m", "bench", "list", "attacks"], work, installed)
    if done.returncode == 0:
        assert kind == "folder"
        assert "badnets" in done.stdout
        return
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(work / name) in line
    assert "`hashdoor`" in line


@pytest.mark.long
@pytest.mark.parametrize("name", [*PACKAGES, "bench"])
@pytest.mark.parametrize("kind", ["folder", "package", "module"])
def test_the_installed_command_does_not_look_into_the_current_folder(installed, work, script, name, kind) -> None:
    put(work, name, kind)
    done = ended([*script, "list", "attacks"], work, installed)
    assert done.returncode == 0, done.stderr
    assert "badnets" in done.stdout


def test_python_m_bench_works_in_the_checkout_and_in_its_folders(installed, work) -> None:
    for place in (ROOT, ROOT / "reports", work):
        done = ended([sys.executable, "-m", "bench", "list", "attacks"], place, installed)
        assert done.returncode == 0, (place, done.stderr)
        assert "badnets" in done.stdout


def test_folders_of_links_to_the_packages_are_the_packages(installed, work) -> None:
    """As a strict editable install makes them."""
    for name in (*PACKAGES, "bench"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                place = work / "links" / path.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
    environment = {**installed, "PYTHONPATH": str(work / "links")}
    done = ended([sys.executable, "-m", "bench", "list", "attacks"], work, environment)
    assert done.returncode == 0, done.stderr
    assert "badnets" in done.stdout


def test_a_checkout_behind_a_link_is_no_other_one(work, installed) -> None:
    (work / "linked").symlink_to(ROOT)
    done = ended(
        [sys.executable, "-m", "bench", "list", "attacks"],
        work / "linked",
        {**installed, "PYTHONPATH": str(work / "linked")},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("kind", ["package", pytest.param("folder", marks=pytest.mark.slow)])
def test_workers_of_ray_take_the_packages_of_the_driver(installed, work, script, kind) -> None:
    """Ray lets its workers look into the current folder first."""
    put(work, "attacks", kind)
    put(work, "hashing", kind)
    (work / "tiny.toml").write_text(TINY)
    words = [
        "run",
        "--suite",
        "tiny.toml",
        "--store",
        "store",
        "--device",
        "cpu",
        "--executor",
        "ray",
        "--workers",
        "1",
    ]
    done = ended([*script, *words], work, installed)
    assert done.returncode == 0, done.stderr
    assert "2 ok" in done.stdout
    assert sorted(path.name for path in work.iterdir()) == ["attacks", "hashing", "store", "tiny.toml"]

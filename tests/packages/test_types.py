"""Types as a user's own mypy sees them: HashDoor installed as a package, strict, nothing of it ignored."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).parent / "consumer"
CACHE = ROOT / ".mypy_cache" / "outside"  # what torch and pandas look like need not be found out each time
OURS = ("attacks", "bench", "defenses", "hashing", "reports", "suites")
KINDS = ("attack", "defense", "method", "backbone", "dataset")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HashDoor installed, not editably, without dependencies, into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for name in OURS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder / "site"), str(source)], check=True, capture_output=True)
    return folder / "site"


def python(folder: Path, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In an unrelated folder, with the installed packages and not the checkout on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    environment |= {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, cwd=folder, env=environment
    )


def complaints(folder: Path, site: Path) -> tuple[set[str], str]:
    """What `mypy --strict` says of all files there: `file.py:3 code`, and its own words."""
    options = ["--strict", "--config-file=", f"--cache-dir={CACHE}", "--no-pretty", "--hide-error-context"]
    done = python(folder, site, "-m", "mypy", *options, ".")
    assert done.returncode in {0, 1}, done.stderr
    found = re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    assert len(found) == done.stdout.count(": error: "), done.stdout
    return {f"{path}:{line} {code}" for path, line, code in found}, done.stdout


def marked(folder: Path) -> set[str]:
    """The lines that must be complained about: those that end in `# E: code`."""
    return {
        f"{path.relative_to(folder)}:{number} {line.rpartition('# E: ')[2]}"
        for path in folder.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "# E: " in line
    }


@pytest.mark.long
def test_every_package_ships_its_marker_and_files(site: Path) -> None:
    assert {path.parent.name for path in site.glob("*/py.typed")} == set(OURS)

    def files(root: Path) -> set[str]:
        found = [path.relative_to(root) for name in OURS for path in (root / name).rglob("*") if path.is_file()]
        return {path.as_posix() for path in found if "__pycache__" not in path.parts}

    documents = {path for path in files(ROOT) if path.endswith(".md")}
    assert files(site) == files(ROOT) - documents - {"reports/excerpt.png"}


def test_it_says_which_version_it_is(site: Path, tmp_path: Path) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for program in (["-m", "bench"], [str(site / "bin" / "hashdoor")]):
        assert python(tmp_path, site, *program, "--version").stdout == f"HashDoor {wanted}\n"


@pytest.mark.long
def test_codes_and_ranking_keep_their_types(site: Path, tmp_path: Path) -> None:
    shutil.copy(CONSUMER / "kernels.py", tmp_path)
    found, told = complaints(tmp_path, site)
    assert found == marked(tmp_path), told
    assert len(found) == 7


@pytest.mark.slow
def test_components_and_results_keep_their_types(site: Path, tmp_path: Path) -> None:
    """Somebody's package, what `bench new` writes, a script and a notebook."""
    shutil.copytree(ROOT / "tests" / "plugin", tmp_path / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONSUMER / "everything.py", tmp_path)
    for kind in KINDS:
        done = python(tmp_path, site, "-m", "bench", "new", kind, f"my_{kind}")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("*.py"))) == len(KINDS) + 5
    found, told = complaints(tmp_path, site)
    assert found == marked(tmp_path), told
    assert len(found) == 11

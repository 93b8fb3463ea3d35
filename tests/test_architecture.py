"""Who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("attacks", "bench", "defenses", "hashing", "reports")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
COMPONENTS = ("attacks", "defenses", "hashing.methods", "hashing.backbones", "hashing.datasets")
REPORTS_MAY = (
    "bench.api.card", "bench.api.registry", "bench.api.errors", "bench.api.untrusted", "bench.api.untrusted",
    "bench.config.trial",
    "bench.engine.store", "bench.metrics", "bench.config.reported",
    "hashing.ranking", "hashing.codes", "reports",
)  # fmt: skip


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Absolute first-party modules that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = ROOT / node.module.replace(".", "/")
            modules = {f"{node.module}.{alias.name}" for alias in node.names if (folder / f"{alias.name}.py").exists()}
            found |= modules if len(modules) == len(node.names) else modules | {node.module}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def within(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_import_rule(path: Path) -> None:
    module = module_of(path)
    for name in imports(path):
        if within(module, "bench.api"):
            assert within(name, "bench.api"), f"{module} is a leaf, but imports {name}"
        elif within(module, "hashing"):
            assert within(name, "bench.api", "hashing"), f"{module} imports {name}"
        elif within(module, "attacks", "defenses"):
            own = module.partition(".")[0]
            assert within(name, "bench.api", "hashing") or name.startswith(f"{own}._") or name == own, (
                f"{module} imports {name}"
            )
        elif within(module, "reports"):
            assert within(name, *REPORTS_MAY), f"{module} imports {name}"
        elif within(module, "bench.cli"):
            assert within(name, "bench", "reports", "hashing"), f"{module} imports {name}"
        else:
            assert within(name, "bench", "hashing"), f"{module} imports {name}"
        for package in COMPONENTS:  # components only by name through the registry, never a sibling
            inside = name.startswith(f"{package}.") and not name.startswith(f"{package}._")
            assert not (inside and name != module), f"{module} imports the component {name}"


def test_the_harness_names_no_component() -> None:
    names = {path.stem for package in COMPONENTS for path in (ROOT / package.replace(".", "/")).glob("[!_]*.py")}
    names -= {"none", "blend"}  # ordinary words too
    for path in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                texts = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                assert not texts & names, f"{path}:{node.lineno} branches on a component's name"


def test_only_execute_imports_ray() -> None:
    for path in FILES:
        words = {
            alias.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for alias in n.names
        }
        if "ray" in words:
            assert module_of(path) == "bench.engine.executors"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 75, f"{module_of(path)}.{node.name} is too long"


@pytest.mark.parametrize(("arguments", "seconds"), [(["--help"], 1.0), (["list"], 1.0), (["list", "attacks"], 1.0)])
def test_start_up(arguments: list[str], seconds: float) -> None:
    """User CPU time, which other work on the machine does not stretch; the best of three, since caches may be cold."""
    best = 9.9
    for _ in range(3):
        before = os.times().children_user + os.times().children_system
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, check=True, capture_output=True)
        best = min(best, os.times().children_user + os.times().children_system - before, time.monotonic() - started)
    assert best < seconds


def test_every_package_ships() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = [ROOT / package for package in (*PACKAGES, "suites")]
    folders += [path for folder in folders for path in folder.rglob("*")]
    there = {module_of(folder / "__init__.py") for folder in folders if (folder / "__init__.py").is_file()}
    assert listed == there

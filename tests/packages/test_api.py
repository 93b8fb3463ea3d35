"""What is public stays as it was, or somebody has decided otherwise."""

from __future__ import annotations

import ast
from difflib import unified_diff
from importlib import import_module
from pathlib import Path

import pytest

from tests.packages.api import MODULES, ROOT, components, names_of, surface

LISTED = (Path(__file__).parent / "api.txt").read_text().splitlines()
OURS = ("attacks", "bench", "defenses", "hashing", "reports", "suites")
EXAMPLES = sorted([*(ROOT / "bench/templates").glob("*.txt"), *(ROOT / "tests/plugin").rglob("*.py")])
ADVICE = """the public surface has changed:
{changes}
What is gone or reads differently breaks people's code, suites or commands: keep the old beside the new, with a warning,
for a minor version at least, or raise the major version (CONTRIBUTING, "Versions"). Then, or where it only grew:
    python -m tests.packages.api > tests/packages/api.txt"""


def name_of(line: str) -> str:
    return line.partition("(")[0]


def test_the_surface_is_as_listed() -> None:
    known = {name_of(line) for line in LISTED}
    new = {line for line in components() if name_of(line) not in known}  # a component more breaks nobody
    found = [line for line in surface() if line not in new]
    changes = [line for line in unified_diff(LISTED, found, n=0, lineterm="") if line[:2] not in {"--", "++", "@@"}]
    assert not changes, ADVICE.format(changes="\n".join(changes))


@pytest.mark.parametrize("module", MODULES)
def test_public_names_can_be_imported(module: str) -> None:
    there = import_module(module)
    assert [name for name in names_of(module) if not hasattr(there, name)] == []
    assert there.__all__ == names_of(module)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_people_start_from_imports_nothing_else(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text().replace("$Class", "Mine"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in OURS:
            assert node.module in MODULES
            assert {alias.name for alias in node.names} <= set(names_of(node.module))
        elif isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names}.isdisjoint({*OURS} - {"reports"})

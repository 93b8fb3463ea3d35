"""Which folder may import which, how long functions may be, and how fast commands start."""

from __future__ import annotations

import ast
import graphlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("attacks", "bench", "defenses", "hashing", "reports")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
COMPONENTS = ("attacks", "defenses", "hashing.methods", "hashing.backbones", "hashing.datasets")
# From the lowest to the highest: a module imports its own folder and the rows above it.
LAYERS = (
    ("bench.api",),
    ("hashing",),
    ("bench.metrics",),
    ("bench.config",),
    ("bench.artifacts",),
    ("bench.access",),
    ("bench.stages",),
    ("bench.graph",),
    ("bench.engine",),
    ("bench.conformance", "bench.kernels", "reports"),
    ("bench.cli",),
    ("bench.__main__",),
)
# These see less than the layers below them.
MAY_IMPORT = {
    "attacks": ("bench.api", "hashing"),
    "defenses": ("bench.api", "hashing"),
    "reports": (
        "bench.api.card", "bench.api.kinds", "bench.api.registry", "bench.api.errors", "bench.api.untrusted",
        "bench.metrics", "bench.config", "bench.artifacts", "bench.engine.collection", "bench.engine.machines",
        "bench.engine.record", "bench.engine.record_cache",
        "bench.engine.runs", "bench.engine.store", "hashing.ranking", "hashing.codes", "hashing.packed",
        "hashing.embeddings", "hashing.parquet_files", "hashing.weight_files",
    ),
}  # fmt: skip


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


class _Running(ast.NodeTransformer):
    """Without what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports(path: Path) -> set[str]:
    """Absolute first-party modules that a file imports, also inside functions, but not for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(_Running().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = ROOT / node.module.replace(".", "/")
            names = [alias.name for alias in node.names]
            inner = [name for name in names if (folder / f"{name}.py").exists() or (folder / name).is_dir()]
            modules = {f"{node.module}.{name}" for name in inner}
            found |= modules if len(modules) == len(node.names) else modules | {node.module}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def within(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def folder_of(name: str) -> str:
    """The row entry of LAYERS or MAY_IMPORT that a module is in."""
    known = [*(folder for row in LAYERS for folder in row), *MAY_IMPORT]
    return next(folder for folder in known if within(name, folder))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_follow_the_layers(path: Path) -> None:
    module = module_of(path)
    if module in {"bench", "bench.__init__"}:
        return
    own = folder_of(module)
    lower = list(itertools.chain.from_iterable(itertools.takewhile(lambda row: own not in row, LAYERS)))
    for name in imports(path):
        assert within(name, own, *MAY_IMPORT.get(own, lower)), f"{module} imports {name}"
        for package in COMPONENTS:  # components only by name through the registry, never a sibling
            helper = within(name, f"{package}.helpers")
            assert not helper or within(module, package), f"{module} imports a helper of {package}"
            inside = name.startswith(f"{package}.") and not helper
            assert not (inside and name != module), f"{module} imports the component {name}"


def test_no_module_imports_another_folders_private_module() -> None:
    for path in FILES:
        for name in imports(path):
            folder, _, last = name.rpartition(".")
            private = last.startswith("_") and (ROOT / f"{name.replace('.', '/')}.py").exists()
            assert not private or folder == ".".join(path.relative_to(ROOT).parent.parts), f"{path} imports {name}"


def test_imports_form_no_circle() -> None:
    """Imports inside functions count too; those for type checkers alone do not."""
    modules = {module_of(path): path for path in FILES}
    graph = {module: (imports(path) & modules.keys()) - {module} for module, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_harness_names_no_component() -> None:
    names = {path.stem for package in COMPONENTS for path in (ROOT / package.replace(".", "/")).glob("[!_]*.py")}
    names -= {"none", "blend"}  # ordinary words too
    for path in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                texts = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                assert not texts & names, f"{path}:{node.lineno} branches on a component's name"


def test_only_the_ray_executor_imports_ray() -> None:
    for path in FILES:
        words = {
            alias.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for alias in n.names
        }
        if "ray" in words:
            assert module_of(path) == "bench.engine.ray_executor"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 75, f"{module_of(path)}.{node.name} is too long"


def cpu_seconds(*words: str) -> float:
    """CPU time of a Python process; the best of three, because caches may be cold."""
    best = float("inf")
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    return best


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "attacks"]], ids=" ".join)
def test_start_up(arguments: list[str]) -> None:
    """Commands that compute nothing load no heavy library, and take little more time than the libraries they need."""
    code = (
        "import sys; from bench.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print({'torch', 'pandas', 'numba', 'scipy', 'ray', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
    needed = cpu_seconds("-c", "import numpy, pydantic, rich.console, rich.table, typer; pydantic.create_model('A')")
    assert cpu_seconds("-m", "bench", *arguments) < 3 * needed


def test_every_package_ships() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = [ROOT / package for package in (*PACKAGES, "suites")]
    folders += [path for folder in folders for path in folder.rglob("*")]
    there = {module_of(folder / "__init__.py") for folder in folders if (folder / "__init__.py").is_file()}
    assert listed == there

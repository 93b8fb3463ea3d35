"""Fingerprints of code: digests that change when an edit can change a stage's result.

A fingerprint covers the stage's module, the components that the stage's spec names, and all modules of this repository
that these import, directly or not. A module counts without its comments, docstrings, CARD, EXPLAINED, `__all__`,
type-checking imports and error messages, since none of them can change a result.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from bench.api import registry

FIRST_PARTY = frozenset({"attacks", "bench", "defenses", "hashing"})
# No result depends on these modules. The first three find components, word errors and describe papers. `inputs` names
# the parents of stages, and keys hold these names already. `specs` holds types only.
EXEMPT = frozenset({
    "bench.api.registry", "bench.api.errors", "bench.api.card", "bench.artifacts.inputs", "bench.artifacts.specs",
})  # fmt: skip
DESCRIPTIVE = frozenset({"CARD", "EXPLAINED", "__all__"})


class _Normalise(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [item for item in node.body if not _is_descriptive(item)]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Remove a statement that is only a text: the docstring of a module, class, function or parameter."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(item) for item in node.orelse]
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        node.msg = None
        return node


def _is_descriptive(node: ast.stmt) -> bool:
    """Whether a statement defines a module's CARD, EXPLAINED or `__all__`."""
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in DESCRIPTIVE for t in node.targets)


def normalised(source: str | bytes) -> str:
    """The part of a module's source that can change a result."""
    return ast.dump(_Normalise().visit(ast.parse(source)))


def fingerprint(modules: tuple[str, ...]) -> str:
    """One digest of the code of modules and of all modules of this repository that they import."""
    return _fingerprint(modules, registry.generation())


def covered(modules: tuple[str, ...]) -> dict[str, str]:
    """The modules that a fingerprint covers, each with a digest of the code that can change a result."""
    seen: dict[str, str] = {}
    todo = [*modules]
    while todo:
        module = todo.pop()
        if module in seen or module in EXEMPT:
            continue
        seen[module], imports = _module(module, registry.generation())
        todo += imports
    return seen


def imported(modules: tuple[str, ...]) -> bool:
    """Import all modules that a fingerprint covers; whether their files are still those that it was computed from.

    Afterwards a change of the files changes no result of this process.
    """
    return _imported(modules, registry.generation())


@cache  # modules that are imported stay as they are
def _imported(modules: tuple[str, ...], generation: int) -> bool:
    del generation
    found = covered(modules)
    for module in found:
        if module not in sys.modules:
            with suppress(ImportError):  # an optional package that is missing: the stage uses no such module
                importlib.import_module(module)
    files = ((_path(module), code) for module, code in found.items())
    return all(path is None or _parsed(path.read_bytes())[0] == code for path, code in files)


@cache  # many stages of a plan share a set of modules
def _fingerprint(modules: tuple[str, ...], generation: int) -> str:
    """generation: of the registry, since a reloaded plugin may give the same name another file."""
    del generation
    joined = "\n".join(f"{module} {text}" for module, text in sorted(covered(modules).items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


@cache
def _module(module: str, generation: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's code, and the modules that it imports whose code counts as well."""
    del generation
    path = _path(module)
    if path is None:
        return "", ()
    text, names = _parsed(path.read_bytes())
    return text, tuple(sorted(_imports(names, module, path)))


@cache
def _parsed(source: bytes) -> tuple[str, tuple[tuple[int, str, tuple[str, ...]], ...]]:
    """Digest of the code, and its imports: number of leading dots, module, names."""
    tree = _Normalise().visit(ast.parse(source))
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(found)


def _path(module: str) -> Path | None:
    """The file of a module, found without importing its parents."""
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or []:
        base = Path(folder, *rest.split("."))
        for candidate in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _imports(named: Iterable[tuple[int, str, tuple[str, ...]]], module: str, path: Path) -> set[str]:
    """The imported modules whose code counts: those of this repository, and those of the user."""
    own = module.partition(".")[0]
    package = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    found: set[str] = set()
    for level, base, names in named:
        parents = package[: len(package) - level + 1] if level else []
        name = ".".join([*parents, *([base] if base else [])])
        found |= {name, *(f"{name}.{inner}" for inner in names)}
    return {name for name in found if _path(name) is not None and _counts(name, own)}


def _counts(name: str, own: str) -> bool:
    """Whether a module is part of the code of the package `own`.

    For a plugin it is, wherever it lies, unless it is installed: an installed package changes with its version only.
    """
    top = name.partition(".")[0]
    if top in FIRST_PARTY | {own} or own in FIRST_PARTY:
        return top in FIRST_PARTY | {own}
    path = _path(name)
    if top in sys.stdlib_module_names or path is None or path.suffix != ".py":
        return False
    return registry.INSTALLED.isdisjoint(path.resolve().parts)

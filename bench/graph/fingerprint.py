"""Code fingerprints: a stage's results are tied to the code that makes them, and to nothing else.

Covered is the normalised source of the stage's module, of the components that it looks up by name, and of every
first-party module that these import, transitively. Normalised means: no comments, docstrings, CARDs, lists of
public names, type-checking imports, or texts of errors, so that only edits that can change a result recompute it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TypeVar

FIRST_PARTY = frozenset({"attacks", "bench", "defenses", "hashing"})
# The first three find components, word errors and describe papers, so that no result depends on them. `inputs` names
# the parents of stages: keys hold these names, and each stage imports the class of what it leaves. `specs` is types.
EXEMPT = frozenset({
    "bench.api.registry", "bench.api.errors", "bench.api.card", "bench.artifacts.inputs", "bench.artifacts.specs",
})  # fmt: skip
TOLD = frozenset({"CARD", "__all__"})


Node = TypeVar("Node", ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class _Normalise(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [item for item in node.body if not _is_told(item)]
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return self._without_docstring(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return self._without_docstring(node)

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

    def _without_docstring(self, node: Node) -> Node:
        body = node.body
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:]
        self.generic_visit(node)
        return node


def _is_told(node: ast.stmt) -> bool:
    """What a module says of itself: its card, its public names."""
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in TOLD for t in node.targets)


def normalised(source: str | bytes) -> str:
    """The part of a module's source that can change a result."""
    return ast.dump(_Normalise().visit(ast.parse(source)))


def fingerprint(modules: tuple[str, ...]) -> str:
    """One digest for a set of modules and everything first-party that they import."""
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in seen or module in EXEMPT:
            continue
        text, imports = _module(module)
        seen[module] = text
        todo += imports
    joined = "\n".join(f"{module} {text}" for module, text in sorted(seen.items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    path = _path(module)
    if path is None:
        return "", ()
    source = path.read_bytes()
    text = hashlib.sha256(normalised(source).encode()).hexdigest()
    return text, tuple(sorted(_imports(_Normalise().visit(ast.parse(source)), module, path)))


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


def _imports(tree: ast.AST, module: str, path: Path) -> set[str]:
    own = module.partition(".")[0]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in found if _path(name) is not None and (_ours(name, own) or _beside(name, module, path))}


def _ours(name: str, own: str) -> bool:
    return name.partition(".")[0] in FIRST_PARTY | {own}


def _beside(name: str, module: str, path: Path) -> bool:
    """Whether a plugin file imports a helper from its own folder."""
    helper = _path(name)
    return module.startswith("hashdoor_plugin_") and helper is not None and path.parent in helper.parents

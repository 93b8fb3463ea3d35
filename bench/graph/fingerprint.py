"""Code fingerprints: a stage's results are tied to the code that makes them, and to nothing else.

Covered is the normalised source of the stage's module, of the components that it looks up by name, and of every
first-party module that these import, transitively. Normalised means: no comments, docstrings, CARDs, lists of
public names, type-checking imports, texts below parameters, or texts of errors, so that only edits that can change a
result recompute it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from bench.api import registry

FIRST_PARTY = frozenset({"attacks", "bench", "defenses", "hashing"})
# The first three find components, word errors and describe papers, so that no result depends on them. `inputs` names
# the parents of stages: keys hold these names, and each stage imports the class of what it leaves. `specs` is types.
EXEMPT = frozenset({
    "bench.api.registry", "bench.api.errors", "bench.api.card", "bench.artifacts.inputs", "bench.artifacts.specs",
})  # fmt: skip
DESCRIPTIVE = frozenset({"CARD", "__all__"})


class _Normalise(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [item for item in node.body if not _is_descriptive(item)]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A statement that is only a text is a docstring, of a module, class, function or parameter."""
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
    """The card and the public names, which describe a module and change no result."""
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in DESCRIPTIVE for t in node.targets)


def normalised(source: str | bytes) -> str:
    """The part of a module's source that can change a result."""
    return ast.dump(_Normalise().visit(ast.parse(source)))


def fingerprint(modules: tuple[str, ...]) -> str:
    """One digest for the code of some modules and of everything first-party that they import."""
    return _fingerprint(modules, registry.generation())


def covered(modules: tuple[str, ...]) -> dict[str, str]:
    """The modules that a fingerprint covers, each with a digest of the code that can change a result."""
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in seen or module in EXEMPT:
            continue
        seen[module], imports = _module(module, registry.generation())
        todo += imports
    return seen


@cache  # a plan has many stages of few sets of modules
def _fingerprint(modules: tuple[str, ...], generation: int) -> str:
    """generation: of the registry, since a plugin may have another file behind the same name."""
    del generation
    joined = "\n".join(f"{module} {text}" for module, text in sorted(covered(modules).items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


@cache
def _module(module: str, generation: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's code, and the first-party modules that it imports."""
    del generation
    path = _path(module)
    if path is None:
        return "", ()
    text, names = _parsed(path.read_bytes())
    return text, tuple(sorted(_imports(names, module, path)))


@cache
def _parsed(source: bytes) -> tuple[str, tuple[tuple[int, str, tuple[str, ...]], ...]]:
    """Digest of the code, and its imports: level of a relative import, module, names."""
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
    """The first-party modules among the imports of a module, and those beside a plugin."""
    own = module.partition(".")[0]
    package = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    found: set[str] = set()
    for level, base, names in named:
        parents = package[: len(package) - level + 1] if level else []
        name = ".".join([*parents, *([base] if base else [])])
        found |= {name, *(f"{name}.{inner}" for inner in names)}
    return {name for name in found if _path(name) is not None and (_ours(name, own) or _beside(name, module, path))}


def _ours(name: str, own: str) -> bool:
    return name.partition(".")[0] in FIRST_PARTY | {own}


def _beside(name: str, module: str, path: Path) -> bool:
    """Whether a plugin file imports a helper from its own folder."""
    helper = _path(name)
    return module.startswith("hashdoor_plugin_") and helper is not None and path.parent in helper.parents

"""The public surface, a line for each thing that people's code, suites and commands may name.

After a change, which CONTRIBUTING's rule ("Versions") must allow: python -m tests.packages.api > tests/packages/api.txt
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = (
    "bench.api.attack", "bench.api.defense", "bench.api.errors", "bench.api.hashing", "bench.api.card",
    "bench.api.random", "bench.api.types", "bench.conformance", "attacks", "hashing.codes", "hashing.inference",
    "hashing.model", "hashing.ranking", "bench.metrics", "reports", "reports.board_registry",
)  # fmt: skip
CALLED = {"__init__", "__call__", "__len__"}  # of the methods that begin with _


def tree_of(module: str) -> ast.Module:
    """Read, not imported: what stands in the source, whichever versions are installed and whatever wraps functions."""
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def assigned(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Names and values, `A, B = 1, 2` included."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            whole = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=True) if whole else [(target, node.value)]
            yield from ((ast.unparse(name), ast.unparse(value)) for name, value in pairs)


def names_of(module: str) -> list[str]:
    """The module's `__all__`."""
    (found,) = [value for node in tree_of(module).body for name, value in assigned(node) if name == "__all__"]
    return list(ast.literal_eval(found))


def told(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """(name, line) of what a statement defines; a class with its fields is followed by its methods."""
    if isinstance(node, ast.FunctionDef):
        marks = {ast.unparse(mark) for mark in node.decorator_list}
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        called = "" if "property" in marks else f"({ast.unparse(node.args)})"
        yield node.name, f"{node.name}{called}{returns}{' as a context' if 'contextmanager' in marks else ''}"
    elif isinstance(node, ast.ClassDef):
        inside = [(item, *pair) for item in node.body for pair in told(item)]
        shown = [(item, line) for item, name, line in inside if not name.startswith("_") or name in CALLED]
        values = [line for item, line in shown if not isinstance(item, ast.FunctionDef)]
        bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
        yield node.name, "; ".join([f"class {node.name}{bases}", *values])
        for item, line in shown:
            if isinstance(item, ast.FunctionDef):
                yield node.name, f"{node.name}.{line.replace('(self, ', '(').replace('(self)', '()')}"
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target), ast.unparse(node)
    else:
        yield from ((name, f"{name} = {value}") for name, value in assigned(node))


def imports() -> Iterator[str]:
    """What a module takes from a public module is listed there; what it takes from a helper is listed here."""
    for module in MODULES:
        found: dict[str, list[str]] = {}
        imported: dict[str, list[str]] = {}
        for node in tree_of(module).body:
            for name, line in told(node):
                found.setdefault(name, []).append(line)
            if isinstance(node, ast.ImportFrom) and (chosen := {a.name for a in node.names} & set(names_of(module))):
                if ".helpers." in str(node.module):
                    for name, line in (pair for item in tree_of(str(node.module)).body for pair in told(item)):
                        if name in chosen:
                            found.setdefault(name, []).append(line)
                else:
                    imported[str(node.module)] = sorted(chosen)
        missing = {*names_of(module)} - {*found} - {name for names in imported.values() for name in names}
        assert not missing, f"{module}.__all__ names {missing}, which is not there"
        yield f"\n[{module}]"
        yield from (f"from {origin}: {', '.join(names)}" for origin, names in imported.items())
        yield from (line for name in names_of(module) for line in found.get(name, ()))


def components() -> Iterator[str]:
    """Built-in components with their parameters: these may become more without a word in the list."""
    from bench.api import registry

    def parameter(item: Field[Any]) -> str:
        return item.name if item.default is MISSING else f"{item.name}={item.default!r}"

    for kind in registry.KINDS:
        for name, source in sorted(registry.catalogue(kind).items()):
            if source.origin == "built in":
                cls = registry.lookup(kind, name)
                versions = f" protocol {cls.protocol_version}" if hasattr(cls, "protocol_version") else ""
                yield f"{kind} {name}({', '.join(map(parameter, fields(cls)))}){versions}"


def rest() -> Iterator[str]:
    """Commands, keys of suites, stores, metrics, suites."""
    from typer.main import get_group

    from bench import metrics
    from bench.cli.app import app
    from bench.config import schema, suite, trial
    from bench.engine import record

    commands = dict(get_group(app).commands)
    boards = commands["report"]
    commands |= {f"report {name}": boards.get_command(None, name) for name in boards.list_commands(None)}
    for name, command in commands.items():
        words = [
            word for item in command.params for word in (item.opts if item.opts[0][0] == "-" else [item.name.upper()])
        ]
        yield f"command {name} {' '.join(words)}"
    for table in (schema.SuiteFile, schema.Block, schema.Axes, schema.Resources, schema.ReportedTable):
        yield f"suite {table.__name__}: {' '.join(table.model_fields)}"
    for table in (record.Record, record.RunManifest):
        yield f"store {table.__name__}, schema {record.SCHEMA}: {' '.join(table.model_fields)}"
    for line in (trial.PlannedTrial, trial.Trial, trial.Spec):
        yield f"store {line.__name__}, schema {record.SCHEMA}: {' '.join(line.__dataclass_fields__)}"
    for what, names in ((f"metrics {metrics.VERSION}: ", metrics.METRICS), ("suites: ", sorted(suite.names()))):
        yield from wrap(" ".join(names), 118, initial_indent=what, subsequent_indent=what)


def surface() -> list[str]:
    """The whole list."""
    text = "\n".join([*imports(), "\n[commands, suites, stores]", *rest(), "\n[components]", *components()])
    return text.strip().splitlines()


if __name__ == "__main__":
    print("\n".join(surface()))

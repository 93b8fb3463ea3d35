"""Finds components by file name, without a central list and without importing torch before one is used.

A component is built in (a file of the package of its kind), or comes from an installed package (an entry point of the
group `hashdoor.<kind>`) or from a file of the user (`--plugin file.py`).

A component can accept old names of its parameters for a while (see `current`):

    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {"rate": ("poison_rate", "0.4")}  # new name, last before 0.4
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as validated

from bench.api.card import Card
from bench.api.errors import NO_BOOLEAN, STOPS, RenamedWarning, UserError, choice, in_words, text_of, unknown
from bench.api.untrusted import abbreviate, boolean_as_number

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """axis: name of the axis in trials and in the specs of stages. package: of the built-in components."""

    axis: str
    package: str


KINDS = {
    "attacks": Kind("attack", "attacks"),
    "defenses": Kind("defense", "defenses"),
    "methods": Kind("method", "hashing.methods"),
    "backbones": Kind("backbone", "hashing.backbones"),
    "datasets": Kind("dataset", "hashing.datasets"),
}
KIND_OF_AXIS = {kind.axis: name for name, kind in KINDS.items()}
_KIND = "__hashdoor_kind__"
DECLARED = {"metrics": "bench.metrics", "boards": "reports.boards"}  # kind of declaration: its package
_DECLARES = "__hashdoor_declares__"


@dataclass(frozen=True)
class Source:
    """Origin of a component. error: the error of a component that cannot be loaded, else ""."""

    kind: str
    name: str
    module: str
    path: Path | None
    origin: str
    error: str = ""


class _FromSource(SourceFileLoader):
    """Compiles the source at each import.

    Python takes a stored compilation of another text if its size and time are equal, as in files of archives.
    """

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


def _user_folder(folder: str) -> FileFinder:
    """Finds modules in the folders of plugins and below them, without stored compilations; for `sys.path_hooks`."""
    path = Path(folder).resolve()
    packages = (*(kind.package for kind in KINDS.values()), *DECLARED.values())
    if any((REPOSITORY / package.partition(".")[0]) in (path, *path.parents) for package in packages):
        raise ImportError("a package of this repository")
    if not _plugin_folders & {path, *path.parents} or not INSTALLED.isdisjoint(path.parts):
        raise ImportError("no folder of a plugin")
    return FileFinder(folder, (_FromSource, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES))


REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = frozenset({"site-packages", "dist-packages"})
_plugin_folders: set[Path] = set()
_plugin_files: dict[Path, ModuleType] = {}
_generation = [0]


def component(kind: str) -> Callable[[type[T]], type[T]]:
    """The decorator of a kind: makes the class a validated, frozen, keyword-only dataclass and marks it.

    Users write `bench.api.attack.attack` and the like, which are functions of their own because type checkers follow
    `dataclass_transform` only on a function.
    """

    def decorate(cls: type[T]) -> type[T]:
        made = validated(cls, frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
        setattr(made, _KIND, kind)
        return made  # type: ignore[return-value]

    return decorate


def load_plugin(path: Path) -> None:
    """Execute a file of the user. Its components have the name of the file. No other function runs files of users.

    UserError: the file does not load, holds no component, or has the name of another plugin.
    """
    path = path.resolve()
    if path in _plugin_files:
        return
    if not path.is_file():
        raise UserError(f"there is no file '{path}'", "give the path of a Python file")
    if twin := next((other for other in _plugin_files if other.stem == path.stem), None):
        raise UserError(f"two plugins are called '{path.stem}': '{twin}' and '{path}'", "rename one")
    if path.suffix not in SOURCE_SUFFIXES:
        raise UserError(f"plugin '{path}' is not a Python file: its name must end in .py")
    _compile_from_source(path.parent)
    name = f"hashdoor_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through sys.modules
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # a plugin may raise anything
        del sys.modules[name]
        if isinstance(error, STOPS):
            raise
        raise UserError(f"plugin '{path}' does not load: {type(error).__name__}: {text_of(error)}") from error
    if not any(_classes(module, kind) for kind in KINDS) and not any(_declared(module, kind) for kind in DECLARED):
        raise UserError(
            f"plugin '{path}' has no component: decorate a class with @attack, @defense, ..., or a function with"
            " @metric or @board"
        )
    _plugin_files[path] = module
    forget()


def _compile_from_source(folder: Path) -> None:
    """From now on, modules in this folder or below it are compiled from their text."""
    if _user_folder not in sys.path_hooks:
        sys.path_hooks.insert(0, _user_folder)
    _plugin_folders.add(folder)
    for found in [found for found in sys.path_importer_cache if folder in (Path(found).resolve() / "_").parents]:
        del sys.path_importer_cache[found]


def mark(function: Callable[..., Any], kind: str, declaration: Any) -> None:
    """Attach its declaration to a function. The decorators of metrics and boards call this."""
    setattr(function, _KIND, kind)
    setattr(function, _DECLARES, declaration)


def generation() -> int:
    """A number that changes with every change of the plugins, for caches of declarations."""
    return _generation[0]


@contextmanager
def plugins_restored() -> Iterator[None]:
    """Unload the plugins that were loaded inside the block."""
    before = dict(_plugin_files)
    try:
        yield
    finally:
        _plugin_files.clear()
        _plugin_files.update(before)
        forget()


def forget() -> None:
    """Clear the caches of components and their code, after files or packages have changed."""
    _generation[0] += 1
    catalogue.cache_clear()
    declaring_modules.cache_clear()


def marked(kind: str) -> Iterator[tuple[Any, str]]:
    """All declarations of a kind of DECLARED, with their origins: built in, an installed package, or a plugin file."""
    for module, origin in _declaring(kind):
        for function in _declared(module, kind):
            yield getattr(function, _DECLARES), origin


def require_unique(what: str, named: Iterable[tuple[str, str]]) -> None:
    """UserError if two of the (name, origin) pairs have the same name. what: "metrics", in the message."""
    seen: dict[str, str] = {}
    for name, origin in named:
        if name in seen:
            raise UserError(f"two {what} are called '{name}': {seen[name]} and {origin}", "rename one")
        seen[name] = origin


@cache  # a plan asks once per trial, and finding entry points reads files
def declaring_modules(kind: str) -> tuple[str, ...]:
    """Names of the modules with declarations of a kind of DECLARED, for fingerprints."""
    return tuple(module.__name__ for module, _ in _declaring(kind) if _declared(module, kind))


def _declaring(kind: str) -> Iterator[tuple[ModuleType, str]]:
    package = importlib.import_module(DECLARED[kind])
    for folder in package.__path__:
        for file in sorted(Path(folder).glob("*.py")):
            if not file.stem.startswith("_"):
                yield importlib.import_module(f"{DECLARED[kind]}.{file.stem}"), "built in"
    for point in entry_points(group=f"hashdoor.{kind}"):
        try:
            module = importlib.import_module(point.module)
        except STOPS:
            raise
        except BaseException as error:
            raise UserError(
                f"the {kind.removesuffix('s')} '{point.name}' ({point.module}) does not load:"
                f" {type(error).__name__}: {text_of(error)}"
            ) from error
        yield module, f"entry point {point.name}"
    for path, module in _plugin_files.items():
        yield module, f"plugin {path}"


@cache
def catalogue(kind: str) -> Mapping[str, Source]:
    """All components of a kind, by name. UserError if two sources have the same name."""
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    found: list[Source] = []
    name = KINDS[kind].package
    package = importlib.util.find_spec(name)
    if package is None or not package.submodule_search_locations:
        raise UserError(f"the package '{name}' is not installed", "run `pip install -e .` in the checkout")
    for folder in package.submodule_search_locations:
        found += [
            Source(kind, file.stem, f"{name}.{file.stem}", file, "built in")
            for file in sorted(Path(folder).glob("*.py"))
            if not file.stem.startswith("_")
        ]
    for point in entry_points(group=f"hashdoor.{kind}"):
        where = f"package {point.dist.name} {point.dist.version}" if point.dist else "entry point"
        spec, error = None, ""
        try:
            spec = importlib.util.find_spec(point.module)
        except STOPS:
            raise
        except BaseException as failure:  # noqa: BLE001 -- finding a module runs the package around it
            error = f"{type(failure).__name__}: {failure}"
        if spec is None:
            error = error or f"no module named '{point.module}'"
        path = Path(spec.origin) if spec and spec.origin else None
        found.append(Source(kind, point.name, point.module, path, where, error))
    found += [
        Source(kind, path.stem, module.__name__, path, f"plugin {path}")
        for path, module in _plugin_files.items()
        if _classes(module, kind)
    ]
    names: dict[str, Source] = {}
    for source in found:
        if source.name in names:
            raise UserError(
                f"two {kind} are called '{source.name}': {names[source.name].origin} and {source.origin}", "rename one"
            )
        names[source.name] = source
    return names


def find(kind: str, name: str) -> Source:
    """The source of a component. The error for an unknown name suggests the nearest valid name."""
    names = catalogue(kind)
    if name not in names:
        raise unknown(kind.removesuffix("s"), name, names, f"see `python -m bench list {kind}`")
    return names[name]


def lookup(kind: str, name: str) -> type[Any]:
    """Import the file of a component and return its class."""
    source = find(kind, name)
    if source.error:
        raise UserError(f"{kind.removesuffix('s')} '{name}' ({source.origin}) does not load: {source.error}")
    try:
        module = importlib.import_module(source.module)
    except BaseException as error:
        if source.origin == "built in" or isinstance(error, STOPS):
            raise
        raise UserError(
            f"{kind.removesuffix('s')} '{name}' ({source.origin}) does not load: {type(error).__name__}:"
            f" {text_of(error)}"
        ) from error
    classes = _classes(module, kind)
    if len(classes) != 1:
        raise UserError(f"{source.module} must define exactly one of the {kind}, found {len(classes)}")
    return classes[0]


def create(kind: str, name: str, params: Mapping[str, Any]) -> Any:
    """A component with its parameters. UserError names all invalid parameters and the expected values."""
    cls = lookup(kind, name)
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        source = find(kind, name)
        raise UserError(f"{kind.removesuffix('s')} '{name}' ({source.origin}) does not define {', '.join(missing)}")
    given = current(kind, name, params)
    try:
        made = cls(**given)
    except ValidationError as error:
        where = f"{kind.removesuffix('s')} '{name}'"
        raise invalid(where, error, [item.name for item in fields(cls)]) from None
    if place := boolean_as_number(given, made):
        raise UserError(f"{kind.removesuffix('s')} '{name}': {place} {NO_BOOLEAN}")
    return made


def required(kind: str, name: str) -> list[str]:
    """Names of the parameters without a default."""
    items = fields(lookup(kind, name))
    return [item.name for item in items if item.default is MISSING and item.default_factory is MISSING]


def current(kind: str, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under their current names, so that labels and keys do not depend on old names."""
    renamed: Mapping[str, tuple[str, str]] = getattr(lookup(kind, name), "renamed", {})
    found = dict(params)
    for old in [old for old in params if old in renamed]:
        new, gone = renamed[old]
        where = f"{kind.removesuffix('s')} '{name}'"
        if new in found:
            raise UserError(f"{where}: '{old}' is the old name of '{new}', and both are given", f"give only '{new}'")
        warnings.warn(f"{where}: '{old}' is now '{new}'; version {gone} drops the old name", RenamedWarning, 3)
        found[new] = found.pop(old)
    return found


def parameters(instance: Any) -> dict[str, Any]:
    """All parameters of a component, defaults included."""
    return asdict(instance)


def invalid(where: str, error: ValidationError, known: Collection[str]) -> UserError:
    """The error of a user about parameters that pydantic refused. where: of what. known: names of its parameters."""
    problems, hints = [], []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            problems.append(f"unknown parameter '{name}'")
            hints.append(choice(name, known))
        elif item["type"].startswith("missing"):
            problems.append(f"needs the parameter '{name}'")
        elif not name:  # an error about several parameters
            problems.append(item["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{name} = {abbreviate(item['input'])}: {in_words(item['msg'])}")
    return UserError(f"{where}: {'; '.join(problems)}", "; ".join(dict.fromkeys(hints)))


def sentence(source: Source) -> str:
    """First line of the docstring of a component, read without importing the component."""
    return (ast.get_docstring(_tree(source)) or "").partition("\n")[0]


def card(source: Source) -> Card | None:
    """The CARD of a component, read without importing the component; None if it is missing or not literal."""
    for node in _tree(source).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets):
            if not isinstance(node.value, ast.Call):
                break
            try:
                return Card(**{str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords})
            except (ValueError, TypeError):
                return None
    return None


def _tree(source: Source) -> ast.Module:
    if source.path is None:
        return ast.parse("")
    try:
        return ast.parse(source.path.read_bytes())  # bytes: Python handles byte order marks and encodings
    except (OSError, SyntaxError, ValueError):
        return ast.parse("")  # `lookup` reports the error


def _classes(module: ModuleType, kind: str) -> list[type[Any]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and vars(value).get(_KIND) == kind
    ]


def _declared(module: ModuleType, kind: str) -> list[Callable[..., Any]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and getattr(value, _KIND, "") == kind
    ]

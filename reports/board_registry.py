"""What a kind of board is, and how one is declared: a decorated function in `reports.boards` or in a plugin.

    @board("most-fragile", chapter="Strength", help="attacks by what one defense leaves of them")
    def most_fragile(data: BoardData, *, floor: float = 0.1) -> list[Board]: ...

Keyword-only arguments are the board's options. `bench report NAME`, `bench list boards`, the HTML page and
`reports.tables(store, NAME)` follow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from bench.api import registry
from bench.api.errors import UserError, nearest, unknown
from bench.engine.record_cache import RecordCache
from reports.context import Board, components
from reports.frame import Results

__all__ = ["BoardData", "BoardKind", "all_boards", "board", "make_boards"]

F = TypeVar("F", bound=Callable[..., list[Board]])


@dataclass(frozen=True)
class BoardData:
    """What boards are made of. mixed: whether one table may mix code, metric and protocol versions."""

    results: Results
    record_cache: RecordCache
    mixed: bool = False


@dataclass(frozen=True)
class BoardKind:
    """name: of the command and of notebooks. chapter: of the page. on_page: options that the page sets."""

    name: str
    chapter: str
    help: str
    function: Callable[..., list[Board]]
    on_page: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> Mapping[str, Any]:
        """Name to default."""
        parameters = inspect.signature(self.function).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def board(
    name: str,
    *,
    chapter: str,
    help: str,  # noqa: A002 -- as option parsers call it
    on_page: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Declares a function of BoardData, and of keyword-only options, that gives boards; UserError if it has none."""

    def decorate(function: F) -> F:
        registry.mark(function, "boards", BoardKind(name, chapter, help, function, on_page or {}))
        return function

    return decorate


def all_boards() -> Mapping[str, BoardKind]:
    """Every kind of board by name: built-in ones, then those of packages and plugins."""
    return _all(registry.generation())


@cache
def _all(generation: int) -> Mapping[str, BoardKind]:
    del generation  # of loaded plugins: another one means to look again
    found: dict[str, BoardKind] = {}
    origins: dict[str, str] = {}
    for kind, origin in registry.marked("boards"):
        if kind.name in found:
            raise UserError(f"two boards are called '{kind.name}': {origins[kind.name]} and {origin}; rename one")
        found[kind.name], origins[kind.name] = kind, origin
    return found


def make_boards(name: str, data: BoardData, options: Mapping[str, Any] | None = None) -> list[Board]:
    """The boards of a kind, ready to be shown; UserError for an unknown kind or option."""
    kinds, given = all_boards(), dict(options or {})
    if name not in kinds:
        raise unknown("kind of board", name, kinds)
    kind = kinds[name]
    for option in given:
        if option not in kind.options:
            known = ", ".join(f"{key}={value}" for key, value in kind.options.items()) or "none"
            raise UserError(
                f"board '{name}' has no option '{option}'{nearest(option, kind.options) or '.'} Known: {known}"
            )
    shown = components(data.results.trials)
    return [replace(made, components=shown) for made in kind.function(data, **given)]

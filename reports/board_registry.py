"""Kinds of boards. A decorated function in `reports.boards` or in a plugin declares one.

    @board("most-fragile", chapter="Strength", help="attacks by what one defense leaves of them",
           columns={"kept": Column("share of the gain that is left after the defense")})
    def most_fragile(data: BoardData, *, floor: Annotated[float, "leave out smaller gains"] = 0.1) -> list[Board]: ...

Keyword-only arguments are the options of the board. `columns` explains the columns that are no metrics; the page shows
the explanation as a tooltip. The declaration is enough for `bench report NAME`, `bench list boards`, the HTML page and
`reports.tables(store, NAME)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any, TypeVar, get_args, get_type_hints

from bench.api import registry
from bench.api.errors import UserError, nearest, unknown
from bench.engine.record_cache import RecordCache
from reports.board import Board, Column
from reports.context import components
from reports.frame import Results
from reports.strength import WeakAttacks

__all__ = [
    "Board", "BoardData", "BoardKind", "BoardOption", "Column", "all_boards", "board", "make_boards", "parts_of",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., list[Board]])


@dataclass(frozen=True)
class BoardData:
    """The data that boards are made from.

    mixed: whether a table may mix versions of code, metrics, protocol and machine.
    """

    results: Results
    record_cache: RecordCache
    mixed: bool = False

    @cached_property
    def weak_attacks(self) -> WeakAttacks:
        """The attacks that are too weak to judge a defense; all boards of a leaderboard share them."""
        return WeakAttacks(self.results.trials, self.mixed)


@dataclass(frozen=True)
class BoardOption:
    """An option of a board: its default, its type, and the help text of its annotation."""

    default: Any
    type: Any
    help: str


@dataclass(frozen=True)
class BoardKind:
    """A kind of board. name: in commands and notebooks. chapter: on the page. on_page: the options that the page sets.

    part_of: the board that contains this one; the page then shows this one only there. columns: the meaning of the
    columns that are no metrics and that reports.board.COMMON does not explain.
    """

    name: str
    chapter: str
    help: str
    function: Callable[..., list[Board]]
    on_page: Mapping[str, Any] = field(default_factory=dict)
    part_of: str = ""
    columns: Mapping[str, Column] = field(default_factory=dict)

    def make(self, data: BoardData, **options: Any) -> list[Board]:
        """The boards of this kind, with the meaning of their columns. Boards of parts keep the name of their kind."""
        return [
            replace(made, columns={**self.columns, **made.columns}, kind=made.kind or self.name)
            for made in self.function(data, **options)
        ]

    @property
    def options(self) -> Mapping[str, BoardOption]:
        """The options by name, in the order of their declaration."""
        parameters = inspect.signature(self.function).parameters.values()
        named = {one.name: one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        # other annotations may name imports that exist only for type checkers
        annotations = SimpleNamespace(__annotations__={name: one.annotation for name, one in named.items()})
        types = get_type_hints(annotations, inspect.unwrap(self.function).__globals__, include_extras=True)
        return {name: BoardOption(one.default, *_told(types.get(name, str))) for name, one in named.items()}


def _told(annotation: Any) -> tuple[Any, str]:
    """The type and the text of `Annotated[type, "text"]`."""
    if not hasattr(annotation, "__metadata__"):
        return annotation, ""
    texts = [one for one in annotation.__metadata__ if isinstance(one, str)]
    return get_args(annotation)[0], texts[0] if texts else ""


def board(
    name: str,
    *,
    chapter: str,
    help: str,  # noqa: A002 -- as option parsers call it
    on_page: Mapping[str, Any] | None = None,
    part_of: str = "",
    columns: Mapping[str, Column] | None = None,
) -> Callable[[F], F]:
    """Declare a function of BoardData and keyword-only options that returns boards.

    The function raises UserError if the run has no data for the board.
    """

    def decorate(function: F) -> F:
        for one in inspect.signature(function).parameters.values():
            if one.kind is one.KEYWORD_ONLY and one.default is one.empty:
                raise TypeError(f"option '{one.name}' of board '{name}' has no default, which the page needs")
        kind = BoardKind(name, chapter, help, function, on_page or {}, part_of, columns or {})
        registry.mark(function, "boards", kind)
        return function

    return decorate


def all_boards() -> Mapping[str, BoardKind]:
    """Every kind of board by name: built in, then of packages, then of plugins."""
    return _all(registry.generation())


@cache
def _all(generation: int) -> Mapping[str, BoardKind]:
    del generation  # changes when a plugin is loaded, and so clears the cache
    found = list(registry.marked("boards"))
    registry.require_unique("boards", ((kind.name, origin) for kind, origin in found))
    return {kind.name: kind for kind, _ in found}


def parts_of(name: str) -> list[BoardKind]:
    """The kinds that the board `name` contains."""
    return [kind for kind in all_boards().values() if kind.part_of == name]


def make_boards(name: str, data: BoardData, options: Mapping[str, Any] | None = None) -> list[Board]:
    """The boards of a kind; UserError for an unknown kind or option."""
    kinds, given = all_boards(), dict(options or {})
    if name not in kinds:
        raise unknown("kind of board", name, kinds, "see `python -m bench list boards`")
    kind = kinds[name]
    for option in given:
        if option not in kind.options:
            known = ", ".join(f"{key}={one.default}" for key, one in kind.options.items()) or "none"
            hint = f"{nearest(option, kind.options)} Known: {known}".strip()
            raise UserError(f"board '{name}' has no option '{option}'", hint)
    shown = components(data.results.trials)
    return [replace(made, components=shown) for made in kind.make(data, **given)]

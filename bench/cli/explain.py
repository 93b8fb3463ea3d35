"""`bench explain`: what a column, a board or a component means, from their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import say
from bench.cli.options import Plugins, emit, load_plugins

if TYPE_CHECKING:
    from bench.api.errors import UserError
    from bench.api.registry import Source
    from bench.metrics import Metric


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="A column as printed or in data frames, a board, or a component."),
    ] = None,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
) -> None:
    """Explain a column (formula, range, example, limits), a board or a component. Without NAME: list all columns."""
    from bench.api import registry
    from bench.api.errors import unknown
    from bench.cli.listing import list_
    from bench.metrics import METRICS
    from reports.board_registry import all_boards

    load_plugins(plugin)
    name = " ".join(words or ())  # names of columns have blanks
    if not name:
        list_("metrics")
        return
    wanted = name.strip().lower()
    metrics = [one for key, one in METRICS.items() if wanted in {key.lower(), one.title.lower()}]
    columns = [] if metrics else [found for found in _columns() if found[0].lower() == wanted]
    boards = [kind for kind in all_boards().values() if kind.name == wanted]
    sources = [source for kind in registry.KINDS for key, source in registry.catalogue(kind).items() if key == wanted]
    for metric in metrics:
        _metric(metric)
    for column, board, text, anchor in columns:
        _facts(f"{column}, a column of {board}", {"meaning": text, "more": anchor and f"bench/METHODOLOGY.md#{anchor}"})
    for kind in boards:
        _facts(f"board {kind.name}", {"shows": kind.help, "print it": f"python -m bench report {kind.name}"})
    for source in sources:
        _component(source)
    if not (metrics or columns or boards or sources):
        known = {one.title for one in METRICS.values()} | {*METRICS} | {column for column, *_ in _columns()}
        known |= {*all_boards()} | {key for kind in registry.KINDS for key in registry.catalogue(kind)}
        raise _unknown(name, known) or unknown("name", name, {one.title for one in METRICS.values()})


def _unknown(name: str, known: set[str]) -> UserError | None:
    """The error with the nearest name; None if no name is near."""
    from bench.api.errors import UserError, nearest

    close = nearest(name, known)
    return UserError(f"nothing is called '{name}'", close) if close else None


def _columns() -> Iterator[tuple[str, str, str, str]]:
    """The columns of boards that are no metrics: name, board, meaning and anchor in the methodology."""
    from reports.board import COMMON
    from reports.board_registry import all_boards

    for name, column in COMMON.items():
        yield name, "all boards", column.meaning, column.methodology
    for kind in all_boards().values():
        for name, column in kind.columns.items():
            yield name, f"the board {kind.name}", column.meaning, column.methodology


def _metric(metric: Metric) -> None:
    from bench.metrics.explained import explanation

    found = explanation(metric)
    better = f"{metric.better} is better" if metric.better else "neither more nor less is better"
    facts = {
        "meaning": metric.meaning,
        "formula": found.formula,
        "range": f"{metric.range}{metric.unit and f' {metric.unit}'}; {better}",
        "example": found.example,
        "does not say": found.silent,
        "clean model": f"column '{metric.control.title}'" if metric.control is not None else "",
        "more": f"bench/METHODOLOGY.md#{metric.methodology}" if metric.methodology else "",
    }
    _facts(f"{metric.title} (in data frames: {metric.name})", facts)


def _component(source: Source) -> None:
    from bench.api import registry

    kind = source.kind.removesuffix("s")
    card = None if source.error else registry.card(source)
    paper = ", ".join(part for part in (card.title, card.venue, str(card.year), card.url) if part) if card else ""
    about = f"does not load: {source.error}" if source.error else registry.sentence(source)
    facts = {"does": about, "paper": paper, "parameters": f"python -m bench list {source.kind} {source.name}"}
    _facts(f"{kind} {source.name}", facts)


def _facts(title: str, facts: dict[str, str]) -> None:
    say(title)
    emit("", [{"": f"  {key}", " ": text} for key, text in facts.items() if text], "rich")

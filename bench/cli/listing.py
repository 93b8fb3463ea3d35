"""`bench list`: what there is, read from files without importing them."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import Format, Plugins, emit, load_plugins


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="attacks, defenses, methods, backbones, datasets, suites, metrics or boards; all without it."
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One component: its card and its parameters.")] = None,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
    format_: Format = "rich",
) -> None:
    """List components and suites, with a sentence and the paper of each; or one component with its parameters."""
    from bench.api import registry
    from bench.api.errors import unknown

    load_plugins(plugin)
    others = {"suites": _suites, "metrics": _metrics, "boards": _boards}
    if kind is not None and kind not in {*registry.KINDS, *others}:
        raise unknown("kind", kind, [*registry.KINDS, *others])
    if kind in others and name is None:
        emit(kind, others[kind](), format_)
        return
    if kind is not None and name is not None:
        _one(kind, name, format_)
        return
    for group in registry.KINDS if kind is None else [kind]:
        rows = []
        for source in registry.catalogue(group).values():
            card = None if source.error else registry.card(source)
            rows.append(
                {
                    "name": source.name,
                    "what it does": f"does not load: {source.error}" if source.error else registry.sentence(source),
                    "paper": f"{card.title} ({', '.join(part for part in (card.venue, str(card.year)) if part)})"
                    if card else "",
                    "from": source.origin,
                }
            )  # fmt: skip
        if format_ == "rich" and all(row["from"] == "built in" for row in rows):
            rows = [{key: value for key, value in row.items() if key != "from"} for row in rows]
        emit(group, rows, format_)
    if kind is None:
        emit("suites", _suites(), format_)


def _suites() -> list[dict[str, str]]:
    from bench.config import suite

    return [{"name": key, "what it does": text} for key, text in suite.names().items()]


def _metrics() -> list[dict[str, str]]:
    from bench.metrics import METRICS

    return [
        {"name": name, "title": one.title, "unit": one.unit, "range": one.range,
         "good": one.better, "section": one.section, "meaning": one.meaning}
        for name, one in METRICS.items()
    ]  # fmt: skip


def _boards() -> list[dict[str, str]]:
    from reports.board_registry import all_boards

    return [
        {"name": kind.name, "chapter": kind.chapter, "what it shows": kind.help,
         "options": ", ".join(f"{name}={option.default}" for name, option in kind.options.items())}
        for kind in all_boards().values()
    ]  # fmt: skip


def _one(kind: str, name: str, format_: Format) -> None:
    """What a component follows, what deviates, and its parameters."""
    from bench.api import registry
    from bench.api.errors import UserError
    from bench.config.parameters import parameters_of

    if kind == "suites":
        raise UserError(f"suites have no parameters: `python -m bench plan --suite {name}` shows what one would run")
    source = registry.find(kind, name)
    about = {"what it does": registry.sentence(source), "from": source.origin, "file": str(source.path or "")}
    if (card := registry.card(source)) is not None:
        paper = ", ".join(part for part in (card.title, card.venue, str(card.year), card.url) if part)
        about |= {"paper": paper, "follows": card.follows, "deviates": card.deviates}
    emit(f"{kind.removesuffix('s')} {name}", [{"": key, " ": text} for key, text in about.items() if text], format_)
    rows = [
        {"parameter": one.name, "type": one.values, "range": one.limits, "default": one.default,
         "meaning": one.description}
        for one in parameters_of(registry.lookup(kind, name))
    ]  # fmt: skip
    emit("parameters", rows, format_)

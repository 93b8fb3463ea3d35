"""`bench list`: what there is, read from files without importing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.console import echo, say
from bench.cli.options import Plugins, emit, emit_all, load_plugins

if TYPE_CHECKING:
    from bench.api.registry import Source
    from bench.config.parameters import Parameter
    from bench.metrics import Metric


ListFormat = Annotated[
    Literal["rich", "markdown", "latex", "csv", "json", "toml"],
    typer.Option("--format", metavar="FORMAT", help="rich, markdown, latex, csv or json; toml for one suite."),
]


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="attacks, defenses, methods, backbones, datasets, suites, metrics or boards."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="An attack, defense, method, backbone, data set or suite.")
    ] = None,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
    format_: ListFormat = "rich",
) -> None:
    """List all components. With KIND: one sentence for each. With NAME: the parameters and the paper of one component.

    `list suites NAME` prints the text of a suite. Metrics and boards have no NAME.
    """
    from bench.api import registry
    from bench.api.errors import UserError, unknown

    load_plugins(plugin)
    if kind == "suites" and name is not None:
        _suite(name, format_)
        return
    if format_ == "toml":
        raise UserError("toml is the format of a suite", "`python -m bench list suites NAME --format toml`")
    others = {"suites": _suites, "metrics": _metrics, "boards": _boards}
    if kind is not None and kind not in {*registry.KINDS, *others}:
        raise unknown("kind", kind, [*registry.KINDS, *others])
    if kind is None and format_ == "rich":
        _overview()
    elif kind is not None and name is not None:
        _one(kind, name, format_)
    elif kind in others:
        others[kind](format_)
    else:
        for group in registry.KINDS if kind is None else [kind]:
            _components(group, format_)
        if kind is None:
            _suites(format_)


def _suite(name: str, format_: ListFormat) -> None:
    """The text of a suite, as it is; other formats have no way to hold it."""
    from bench.api.errors import UserError
    from bench.config import suite

    if format_ not in {"rich", "toml"}:
        raise UserError("a suite is a TOML file", f"`python -m bench list suites {name} --format toml` prints it")
    echo(suite.text_of(name).rstrip("\n"))


def _overview() -> None:
    """The names of everything, a line or a few for each kind."""
    from bench.api import registry
    from bench.config import suite

    names = {kind: [*registry.catalogue(kind)] for kind in registry.KINDS}
    names |= {"suites": [*suite.names()]}
    emit("", [{"kind": kind, "names": ", ".join(found)} for kind, found in names.items()], "rich")
    say(
        "`python -m bench list attacks` says what each attack does. `python -m bench list attacks ciba` prints the"
        " parameters of one. `bench list metrics` explains the columns of boards, `bench list boards` the boards."
    )


def _components(kind: str, format_: str) -> None:
    """The components of one kind. People read the year of the paper; other formats have its title, venue and year."""
    from bench.api import registry

    sources = registry.catalogue(kind).values()
    shown = format_ != "rich" or any(source.origin != "built in" for source in sources)
    rows = []
    for source in sources:
        card = None if source.error else registry.card(source)
        venue = ", ".join(part for part in (card.venue, str(card.year)) if part) if card else ""
        full = {"paper": f"{card.title} ({venue})" if card else ""}
        year = {"paper": str(card.year) if card and source.name != "none" else ""}
        origin = {"from": source.origin} if shown else {}
        text = f"does not load: {source.error}" if source.error else registry.sentence(source)
        row = {"name": source.name, **year, **origin, "what it does": text}
        rows.append(row if format_ == "rich" else {"name": source.name, "what it does": text, **full, **origin})
    emit(kind, rows, format_)


def _suites(format_: str) -> None:
    from bench.config import suite

    emit("suites", [{"name": key, "what it does": text} for key, text in suite.names().items()], format_)


def _metrics(format_: str) -> None:
    """All metrics. People read a table for each section, whose first column is the heading on boards."""
    from bench.metrics import METRICS

    if format_ == "rich":
        for section in METRICS.sections():
            names = METRICS.of(section)
            emit(
                section,
                [{"column": METRICS[one].title, "name": one, **_meaning(METRICS[one])} for one in names],
                "rich",
            )
        return
    rows = [
        {"name": name, "title": one.title, "unit": one.unit, "range": one.range,
         "good": one.better, "section": one.section, "meaning": one.meaning}
        for name, one in METRICS.items()
    ]  # fmt: skip
    emit("metrics", rows, format_)


def _meaning(metric: Metric) -> dict[str, str]:
    unit = metric.unit and f" {metric.unit}"
    better = metric.better and f", {metric.better} is better"
    return {"meaning (range)": f"{metric.meaning} ({metric.range}{unit}{better})"}


def _boards(format_: str) -> None:
    from reports.board_registry import all_boards

    rows = [
        {"name": kind.name, "chapter": kind.chapter, "what it shows": kind.help,
         "options": ", ".join(f"{name}={option.default}" for name, option in kind.options.items())}
        for kind in all_boards().values()
    ]  # fmt: skip
    if format_ == "rich":
        rows = [
            {"name": row["name"], "what it shows": row["what it shows"] + (row["options"] and f" ({row['options']})")}
            for row in rows
        ]
    emit("boards", rows, format_)
    if format_ == "rich":
        say("`python -m bench report NAME` prints one board; brackets show its options (`--help` explains them).")


def _one(kind: str, name: str, format_: str) -> None:
    """One component: what it does, its parameters, its paper, and what of the paper it changes."""
    from bench.api import registry
    from bench.api.errors import UserError
    from bench.config.parameters import parameters_of

    if kind not in registry.KINDS:
        raise UserError(f"{kind} have no parameters", f"`python -m bench list {kind}` explains all of them")
    source = registry.find(kind, name)
    parameters = parameters_of(registry.lookup(kind, name))
    title = f"{kind.removesuffix('s')} {name}"
    if format_ == "rich":
        _print_one(title, source, parameters)
        return
    about = {"what it does": registry.sentence(source), "from": source.origin, "file": str(source.path or "")}
    about |= _paper(source)
    rows = [
        {"parameter": one.name, "type": one.values, "range": one.limits, "default": one.default,
         "meaning": one.description}
        for one in parameters
    ]  # fmt: skip
    facts = [{"about": key, "text": text} for key, text in about.items() if text]
    emit_all({title: facts, "parameters": rows}, format_)


def _print_one(title: str, source: Source, parameters: list[Parameter]) -> None:
    from bench.api import registry

    say(f"{title}: {registry.sentence(source)}")
    echo("")
    rows = [
        {"parameter": one.name, "default": one.default,
         "meaning (range)": f"{one.description} ({one.values}{one.limits and f' {one.limits}'})".strip()}
        for one in parameters
    ]  # fmt: skip
    if rows:
        emit("", rows, "rich")
    path = source.path
    inside = path is not None and path.is_relative_to(Path.cwd())
    file = str(path.relative_to(Path.cwd()) if path is not None and inside else path or "")
    about = {**_paper(source), "file": file if source.origin == "built in" else f"{file} ({source.origin})"}
    emit("", [{"": key, " ": text} for key, text in about.items() if text], "rich")
    example = next((one for one in parameters if one.default != "-"), None)
    if example and example.default != "required":
        name = f"{source.kind}.none" if source.name == "none" else source.name
        say(f"To set a parameter of a component of the suite:\n  python -m bench run --set {name}.{example.name}="
            f"{example.default}")  # fmt: skip


def _paper(source: Source) -> dict[str, str]:
    """What the card says: the paper, what the component takes from it, and what it changes."""
    from bench.api import registry

    if (card := registry.card(source)) is None:
        return {}
    paper = ", ".join(part for part in (card.title, card.venue, str(card.year), card.url) if part)
    return {"paper": paper, "follows": card.follows, "deviates": card.deviates}

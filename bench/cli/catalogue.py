"""`bench list`: what there is, read from files without importing them."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli._options import Format, Plugins, emit


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="attacks, defenses, methods, backbones, datasets or suites; all without it.")
    ] = None,
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
    format_: Format = "rich",
) -> None:
    """List components and suites, with a sentence and the paper of each."""
    from bench import suite
    from bench.api import registry
    from bench.api.errors import unknown

    for path in plugin:
        registry.load_plugin(path)
    if kind is not None and kind not in {*registry.KINDS, "suites"}:
        raise unknown("kind", kind, [*registry.KINDS, "suites"])
    for name in registry.KINDS if kind is None else [kind]:
        if name == "suites":
            continue
        rows = []
        for source in registry.catalogue(name).values():
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
        emit(name, rows, format_)
    if kind in {None, "suites"}:
        emit("suites", [{"name": key, "what it does": text} for key, text in suite.names().items()], format_)

"""`bench report`: what a run says beyond its boards."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from bench.cli._options import DEFAULT_STORE, Format, StorePath, Suites


def report(
    what: Annotated[Literal["claims"], typer.Argument(help="claims: what papers report beside what was measured.")],
    suites: Suites = [],  # noqa: B006 -- typer needs a literal
    store: StorePath = DEFAULT_STORE,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")
    ] = False,
    format_: Format = "rich",
) -> None:
    """Set every number of the suites' papers beside what this store measured; all shipped suites without --suite."""
    from bench import suite
    from bench.api.errors import UserError
    from bench.store import Store
    from reports import claims, frame, render

    del what
    wanted = [suite.load(name) for name in suites or suite.names()]
    holding = [one for one in wanted if one.claims]
    if not holding:
        raise UserError(f"no claims in {', '.join(one.name for one in wanted)}: `python -m bench list suites`")
    runs = {name for plan in frame.manifests(Store(store)) for name in plan["suites"]} if store.exists() else set()
    boards = []
    for one in holding:
        cells = frame.read(Store(store), suite=one.name, run="all").cells if one.name in runs else None
        boards += claims.claims(cells, one.claims, mixed=mixed)
    render.render(boards, format_)

"""`bench report`: what a run says beyond its boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli._options import DEFAULT_STORE, Format, StorePath, Suites

if TYPE_CHECKING:
    from reports.scene import Board


def report(
    what: Annotated[
        Literal["claims", "audit", "doses", "matched", "why"],
        typer.Argument(
            help="claims: what papers report beside what was measured. audit: the latest run under every convention."
            " doses: how much of a swept attack does half of what it can do. matched: defenses against attacks of equal"
            " gain. why: where triggered codes go, how sure bits are, what models attend to."
        ),
    ],
    suites: Suites = [],  # noqa: B006 -- typer needs a literal
    store: StorePath = DEFAULT_STORE,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")
    ] = False,
    format_: Format = "rich",
) -> None:
    """What a run says beyond its boards; claims are those of all shipped suites without --suite."""
    from bench.store import Store
    from reports import audit, doses, frame, render

    names: list[str | None] = [*suites] or [None]
    if what == "doses":
        boards = [board for name in names for board in doses.doses(Store(store), name, mixed=mixed)]
    elif what == "audit":
        found = [audit.audit(frame.read(Store(store), suite=name).cells, mixed=mixed) for name in names]
        boards = [board for one in found for board in one]
    else:
        boards = _claims(suites, store, mixed)
    render.render(boards, format_)


def _claims(suites: list[str], store: Path, mixed: bool) -> list[Board]:
    """Every number of the suites' papers beside what this store measured."""
    from bench import suite
    from bench.api.errors import UserError
    from bench.store import Store
    from reports import claims, frame

    wanted = [suite.load(name) for name in suites or suite.names()]
    holding = [one for one in wanted if one.claims]
    if not holding:
        raise UserError(f"no claims in {', '.join(one.name for one in wanted)}: `python -m bench list suites`")
    runs = {name for plan in frame.manifests(Store(store)) for name in plan["suites"]} if store.exists() else set()
    boards = []
    for one in holding:
        cells = frame.read(Store(store), suite=one.name, run="all").cells if one.name in runs else None
        boards += claims.claims(cells, one.claims, mixed=mixed)
    return boards

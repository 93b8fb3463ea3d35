"""`bench site`: the static site of published results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import console, echo
from bench.cli.options import Plugins, load_plugins


def site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the site: new, empty, or with a site.")],
    store: Annotated[
        Path,
        typer.Option("--store", metavar="DIR", help="A store, a bundle, a collection, or the word reference."),
    ] = Path("reference"),
    plugin: Plugins = [],  # noqa: B006 -- typer needs a literal
) -> None:
    """Write a static site: the boards of every run, a page per attack, defense, method and data set, and a glossary.

    It needs no network and no server; open DIR/index.html. The default is the published reference results.
    """
    from rich.markup import escape

    from bench.engine.collection import opened
    from reports.site import writing

    load_plugins(plugin)
    with console(stderr=True).status(f"writing {escape(str(folder))}"):
        said = writing.draw(opened(store), folder)
    echo(f"{folder / 'index.html'}: {said}")

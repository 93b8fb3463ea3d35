"""Options that several commands share, and printing small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.api.untrusted import strip_controls
from bench.cli.console import console

Format = Annotated[
    Literal["rich", "markdown", "latex", "csv", "json"], typer.Option("--format", help="How to print tables.")
]
Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin", metavar="FILE", help="A Python file with components, metrics or boards; it is executed. Repeatable."
    ),
]
StorePath = Annotated[Path, typer.Option("--store", metavar="DIR", help="Folder of the results.")]
Suites = Annotated[
    list[str], typer.Option("--suite", metavar="NAME|FILE", help="A suite's name or TOML file. Repeatable.")
]
Where = Annotated[
    list[str], typer.Option("--where", metavar="AXIS=A,B", help="Use only these values of an axis. Repeatable.")
]
AllRuns = Annotated[bool, typer.Option("--all-runs", help="Use the trials of all runs, each with its latest result.")]
Mixed = Annotated[bool, typer.Option("--mixed", help="Allow one table to mix code, metric and protocol versions.")]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="AXIS=A,B", help="Replace an axis, or training.lr=..., resources.threads=..."),
]
Only = Annotated[list[str], typer.Option("--only", metavar="AXIS=A,B", help="Keep only these values of an axis.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="HASHDOOR_DATA", help="Where data sets lie (see `bench doctor`)."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]

DEFAULT_STORE = Path("runs")


def load_plugins(files: Sequence[Path]) -> None:
    """Load the files of `--plugin`."""
    from bench.api import registry

    for path in files:
        registry.load_plugin(path)


def emit(title: str, rows: Sequence[Mapping[str, str]], format_: str) -> None:
    """Print a table of texts. In the terminal its cells are folded; other formats are those of boards."""
    columns = list(rows[0]) if rows else []
    if format_ != "rich":
        import pandas as pd

        from reports import render
        from reports.context import Board

        table = pd.DataFrame(list(rows), columns=columns)
        render.render([Board(title, table, "", index=tuple(columns[:1]))] if columns else [], format_)
        return
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        shown.add_column(column, style="bold" if number == 0 else "", overflow="fold", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*(Text(strip_controls(value)) for value in row.values()))
    out = console()
    out.print(shown)
    out.print()


def device_of(wanted: str) -> str:
    """A device that this machine has; "auto" is CUDA where there is one, else the CPU."""
    import torch

    from bench.api.errors import UserError

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{wanted}' cannot be used here ({reason}): try --device auto or cpu") from None
    return wanted

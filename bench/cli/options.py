"""Options that several commands share, and printing small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.api.untrusted import strip_controls
from bench.cli.console import console, echo

if TYPE_CHECKING:
    from bench.engine.store import Store

Format = Annotated[
    Literal["rich", "markdown", "latex", "csv", "json"], typer.Option("--format", help="How to print tables.")
]
Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin", metavar="FILE", help="A Python file with components, metrics or boards; it is executed. Repeatable."
    ),
]
StorePath = Annotated[Path, typer.Option("--store", metavar="DIR", help="Where results are kept.")]
Suites = Annotated[
    list[str], typer.Option("--suite", metavar="NAME|FILE", help="A suite's name or TOML file. Repeatable.")
]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="AXIS=A,B", help="Replace an axis, or training.lr=..., resources.threads=..."),
]
Only = Annotated[list[str], typer.Option("--only", metavar="AXIS=A,B", help="Keep only these values of an axis.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="HASHDOOR_DATA", help="Where data sets lie (see `bench doctor`)."),
]
RunOf = Annotated[
    str, typer.Option("--run", metavar="ID|latest|all", help="The run that is read: `bench runs` lists ids.")
]
SuiteOf = Annotated[str | None, typer.Option("--suite", help="Only runs of this suite.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]

DEFAULT_STORE = Path("runs")


def memory_limit() -> int | None:
    """Bytes of address space that this process may have; None without a limit."""
    try:
        import resource
    except ImportError:  # a system that has no such limit
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def note_left_out(store: Store, run: str, suite: str | None) -> None:
    """Say on stderr which larger run, or unreadable one, a command did not show."""
    from rich.text import Text

    from bench.engine.runs import chosen, left_out

    if said := left_out(store, chosen(store, run, suite=suite)):
        console(stderr=True, soft_wrap=True).print(Text(strip_controls(f"note: {said}")))


def load_plugins(files: Sequence[Path]) -> None:
    """What `--plugin` names."""
    from bench.api import registry

    for path in files:
        registry.load_plugin(path)


def emit(title: str, rows: Sequence[Mapping[str, str]], format_: str) -> None:
    """A small table of words, which may be a stranger's."""
    title, rows = (
        strip_controls(title),
        [{strip_controls(key): strip_controls(value) for key, value in row.items()} for row in rows],
    )
    if format_ != "rich":
        import json

        import pandas as pd

        frame = pd.DataFrame(rows)
        if format_ == "json":
            echo(json.dumps({title: rows}, indent=1))
        elif format_ == "csv":
            echo(frame.to_csv(index=False).rstrip())
        else:
            from tabulate import tabulate

            style = "github" if format_ == "markdown" else "latex_booktabs"
            head = f"## {title}\n\n" if format_ == "markdown" else ""
            lines, columns = [list(row.values()) for row in rows], list(rows[0]) if rows else []
            echo(f"{head}{tabulate(lines, headers=columns, tablefmt=style)}\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(rows[0] if rows else ()):
        table.add_column(column, style="bold" if number == 0 else "", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(value) for value in row.values()))
    out = console()
    out.print(table)
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

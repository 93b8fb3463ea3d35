"""Options that several commands share, and the printing of small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text
from typer.core import TyperCommand

from bench.api.untrusted import strip_controls
from bench.cli.console import console, echo, line, write

if TYPE_CHECKING:
    from bench.engine.record_cache import RecordCache
    from bench.engine.runs import Selection
    from reports.text_table import TextTable


class PlainFlags:
    """Mixin of commands: their help prints no type behind an option that takes no value."""

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)  # type: ignore[misc]
        for one in found:
            if getattr(one, "is_flag", False):
                one.metavar = " "
        return found


class Command(PlainFlags, TyperCommand):
    """A command of `bench`."""


Format = Annotated[
    Literal["rich", "markdown", "latex", "csv", "json"],
    typer.Option("--format", metavar="FORMAT", help="rich, markdown, latex, csv or json."),
]
Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin", metavar="FILE", help="A Python file with components, metrics or boards; it is executed. Repeatable."
    ),
]
StorePath = Annotated[Path, typer.Option("--store", metavar="DIR", help="Folder of the results (the store).")]
ReadPath = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Folder of the results (the store), or a bundle (.zip), or the word reference: bundles of this package.",
    ),
]
Beside = Annotated[
    Path | None,
    typer.Option(
        "--beside", metavar="STORE|reference", help="Also print the first numbers of each row in this store or bundle."
    ),
]
Suites = Annotated[
    list[str], typer.Option("--suite", metavar="NAME|FILE", help="Name or TOML file of a suite. Repeatable.")
]
SuitesOf = Annotated[
    list[str],
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help="Use only runs of this suite. A TOML file stands for the runs of its present text. Repeatable.",
    ),
]
Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        metavar="AXIS=A,B",
        help="Use only results with these values of an axis, for example attack=badnets. Repeatable.",
    ),
]
Mixed = Annotated[
    bool,
    typer.Option(
        "--mixed", help="Allow results of different versions (code, metrics, protocol) or machines in one table."
    ),
]
Wide = Annotated[bool, typer.Option("--wide", help="Print all columns and notes. Default: the main ones.")]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B",
        help="Print these columns in this order, by their printed names or names in data frames: attack,t-mAP,gain.",
    ),
]
Pivot = Annotated[
    str | None,
    typer.Option(
        "--pivot",
        metavar="AXIS",
        help="Join the boards of all values of an axis, for example bits: a column per value.",
    ),
]
Label = Annotated[str | None, typer.Option("--label", metavar="LABEL", help="Label of the LaTeX table.")]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write a file per board into this folder (not with --format rich)."),
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=A,B",
        help="Replace the values of an axis (bits=16,32), a parameter (badnets.poison_rate=0.01,0.1) or another key"
        " (training.lr=0.01). Several values are a sweep. Repeatable.",
    ),
]
Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="AXIS=A,B",
        help="Run only the trials with these values of an axis, for example attack=badnets. Repeatable.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="HASHDOOR_DATA", help="Folder of the data sets (see `bench doctor`)."),
]
RunOf = Annotated[
    str,
    typer.Option(
        "--run",
        metavar="ID|latest|all",
        help="Id of the run (see `bench runs`), latest, or all (the newest result of each trial).",
    ),
]
SuiteOf = Annotated[
    str | None,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help="Use only runs of this suite. A TOML file stands for the runs of its present text.",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="Device of training and encoding: auto, cpu, cuda, cuda:1 or mps."),
]

DEFAULT_STORE = Path("runs")
LEFT = 20  # characters that must be left for the last column of a small table, or else all columns are wrapped


def memory_limit() -> tuple[str, int] | None:
    """The tighter of `ulimit -v` and `ulimit -d`, and the bytes that it allows; None without a limit."""
    try:
        import resource
    except ImportError:  # a system that has no such limit
        return None
    limits = [
        (name, resource.getrlimit(kind)[0]) for name, kind in (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA))
    ]
    set_ones = [(f"ulimit {name}", limit) for name, limit in limits if limit != resource.RLIM_INFINITY]
    return min(set_ones, key=lambda found: found[1], default=None)


def note_left_out(selection: Selection, records: RecordCache, *, standing: bool = True) -> None:
    """Say on stderr how far published runs are checked, and which other runs a command did not show."""
    from bench.engine.runs import left_out

    for run in selection.shown if standing else ():
        if said := records.store.standing(run):
            line(f"note: {said}", out=console(stderr=True))
    if said := left_out(selection, records):
        line(f"note: {said}", out=console(stderr=True))


def load_plugins(files: Sequence[Path]) -> None:
    """Load the files that `--plugin` names."""
    from bench.api import registry

    for path in files:
        registry.load_plugin(path)


def emit(title: str, rows: Sequence[Mapping[str, str]], format_: str) -> None:
    """Print one table of texts; see `emit_all`."""
    emit_all({title: rows}, format_)


def emit_all(tables: Mapping[str, Sequence[Mapping[str, str]]], format_: str) -> None:
    """Print small tables of texts, which may come from strangers, by title.

    In the format `rich` only the last column is wrapped as long as LEFT characters are left for it. The other formats
    are those of boards: one JSON document, for example, holds all tables.
    """
    cleaned = {
        strip_controls(title): [
            {strip_controls(key): strip_controls(value) for key, value in row.items()} for row in rows
        ]
        for title, rows in tables.items()
    }
    if format_ == "rich":
        for title, rows in cleaned.items():
            _print(title, rows)
        return
    import pandas as pd

    from reports import render
    from reports.board import Board

    boards = [
        Board(title, pd.DataFrame(rows), "", index=(next(iter(rows[0])),)) for title, rows in cleaned.items() if rows
    ]
    render.render(boards, format_)


def _print(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    from reports.text_table import TextTable

    columns = list(rows[0]) if rows else []
    cells = {column: [row[column] for row in rows] for column in columns}
    widths = [max(len(column), *map(len, cells[column])) for column in columns[:-1]]
    fits = sum(widths) + 2 * len(widths) + LEFT <= console().width
    fixed = frozenset(columns[:-1] if fits else columns[:1])  # ids and names can be copied
    first = columns[0] if columns else ""
    write_table(TextTable(cells, fixed=fixed, style=lambda column, _: "bold" if column == first else ""), title)
    echo("")


def write_table(table: TextTable, title: str = "") -> None:
    """Print a table below its title."""
    from reports.text_table import drawn

    if title:
        write(Text(title, style="bold"))
    for piece in drawn(table, console().width):
        write(piece)


def device_of(wanted: str) -> str:
    """The device, checked: "auto" is CUDA if the machine has it, else the CPU. UserError if it cannot be used."""
    import torch

    from bench.api.errors import UserError

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{wanted}' cannot be used here ({reason})", "try --device auto or cpu") from None
    return wanted

"""Kernel times that `bench kernels --format json` printed, as boards and a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api.errors import UserError
from bench.api.untrusted import read_json, strip_controls
from reports import chart_layout
from reports.board import Board
from reports.chart import Chart
from reports.figures import logarithmic
from reports.palette import FAINT, GREY, INK
from reports.rows import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("operation", "by", "bits", "items", "threads", "per", "microseconds", "images/s", "times ours", "low",
           "high", "of the limit", "note")  # fmt: skip
LIMIT, ROWS = 2**25, 1000  # largest number of bytes and of rows; a full measurement has far fewer
Positive = Annotated[float, Field(gt=1e-15, lt=1e9)]
Quantiles = tuple[Positive, Positive, Positive]  # 10 %, median, 90 %
Count = Annotated[int, Field(ge=0)]


class Row(BaseModel):
    """One implementation of one operation, as `bench.kernels.kernel_benchmark.Row` is written."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    section: str
    operation: str
    by: str
    threads: Count
    bits: Count = 0
    items: Count = 0
    unit: str = "query"
    seconds: Quantiles | None = None
    faster: Quantiles | None = None
    limit: Annotated[float, Field(allow_inf_nan=False)] | None = None
    note: str = ""


class Machine(BaseModel):
    """The machine of the measurement."""

    processor: str
    cores: Count
    packages: dict[str, str | None]


class Measured(BaseModel):
    """The content of the file."""

    machine: Machine
    rows: Annotated[list[Row], Field(min_length=1, max_length=ROWS)]  # the time to draw grows with the rows


def read(path: Path) -> tuple[list[Board], list[Chart]]:
    """A board per section, and a chart of times relative to HashDoor; UserError for another kind of file."""
    try:
        found = Measured.model_validate(read_json(path, LIMIT))
    except OSError as error:
        raise UserError(f"--kernels '{path}' cannot be read ({error.strerror})") from None
    except ValueError as error:  # pydantic's ValidationError is one
        raise UserError(f"--kernels '{path}' is no output of `bench kernels --format json`: {_short(error)}") from None
    boards = list(_boards(found))
    raced = [(_name(row), row.faster) for row in found.rows if row.faster]
    if not raced:
        return boards, []
    caption = (
        "Bars: median over interleaved rounds. Lines: 10 % to 90 % of the rounds. 1: HashDoor's kernel. All"
        " implementations return equal results."
    )
    return boards, [Chart("Time relative to HashDoor", "", caption, partial(bars, raced))]


def _short(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _boards(found: Measured) -> Iterator[Board]:
    packages = ", ".join(f"{name} {version}" for name, version in found.machine.packages.items() if version)
    caption = (
        f"{found.machine.processor}, {found.machine.cores} cores; {packages}.\nMeasured"
        " times, which no command recomputes. microseconds: median of interleaved rounds. times ours: time divided by"
        " the time of HashDoor's kernel. low, high: the same at 10 % and 90 % of the rounds. of the limit: share of the"
        " speed at which memory can be read."
    )
    for i, section in enumerate(dict.fromkeys(row.section for row in found.rows)):
        lines = [_line(row) for row in found.rows if row.section == section]
        yield Board(
            title=f"Kernels · {section}",
            table=table(lines, COLUMNS, keep=COLUMNS[:2]),
            caption="As above." if i else caption,
            index=("operation", "by"),
        )


def _line(row: Row) -> dict[str, Any]:
    low, middle, high = row.faster or (None, None, None)
    return {
        "operation": row.operation, "by": row.by, "bits": row.bits or None, "items": row.items or None,
        "threads": row.threads, "per": row.unit,
        "microseconds": float(f"{row.seconds[1] * 1e6:.3g}") if row.seconds else None,
        "images/s": round(1 / row.seconds[1]) if row.seconds and row.unit == "image" else None,
        "times ours": middle, "low": low, "high": high, "of the limit": row.limit, "note": row.note or None,
    }  # fmt: skip


def _name(row: Row) -> str:
    sizes = [f"{row.items:,} items"] if row.items else []
    sizes += [f"{row.bits} bits"] if row.bits else []
    return strip_controls(", ".join([f"{row.operation}: {row.by}", *sizes]))


def bars(raced: Sequence[tuple[str, tuple[float, float, float]]], width: float) -> Figure:
    from matplotlib.figure import Figure

    rows = raced[::-1]
    names = [chart_layout.fitted(name, width * chart_layout.POINTS * 0.45) for name, _ in rows]
    lines = len(names) * max(name.count("\n") + 1 for name in names)
    letters = chart_layout.LEADING * chart_layout.font_size() / chart_layout.POINTS
    figure = Figure(figsize=(width, 1 + 1.15 * letters * lines), layout="constrained")
    axes, places = figure.subplots(), range(len(rows))
    low, middle, high = zip(*(times for _, times in rows), strict=True)
    axes.barh(places, middle, color=GREY, alpha=0.7)
    axes.hlines(places, low, high, color=INK, linewidth=1)
    axes.set_yticks(places, names)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    logarithmic(axes.xaxis)
    axes.set_xlabel(chart_layout.fitted("times HashDoor's time", width * chart_layout.POINTS * 0.5))
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    return figure

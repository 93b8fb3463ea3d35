"""Numbers that papers report, as suites hold them: `[[reported]]` beside the axes that would measure them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.api.errors import UserError, nearest


class ReportedTable(BaseModel):
    """One printed table or a part of it.

    source: paper and table. metric: which of METRICS its convention is. by: the axes that `values` is nested by.
    where: axes that all of it shares. percent: numbers stand as printed, in percent. bound: set where a
    paper's text gives a bound and no number. note: what a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Annotated[str, Field(min_length=1)]
    """Paper and table."""
    metric: str
    """A metric of `bench list metrics`, in the convention of the paper."""
    by: list[str] = []
    """Axes of the nested tables in `values`, outermost first, for example ["method", "bits"]."""
    where: dict[str, str | int] = {}
    """Axes that all numbers of the table share."""
    percent: bool = False
    """Whether numbers are in percent."""
    bound: Literal["", "at least"] = ""
    """Use "at least" if the paper gives only a lower bound."""
    note: str = ""
    """Text beside the numbers."""
    values: dict[str, Any] | float
    """The numbers, nested by the axes of `by`."""


@dataclass(frozen=True)
class ReportedNumber:
    """value: in the metric's unit. axes: what a trial must match (`reports.reported` says how)."""

    source: str
    metric: str
    axes: Mapping[str, str]
    value: float
    note: str
    bound: str = ""


def reported_numbers(where: str, tables: Sequence[ReportedTable], axes: Sequence[str]) -> tuple[ReportedNumber, ...]:
    """Every number of the tables. where: the suite, for errors; axes: those that trials have."""
    if not tables:
        return ()
    from bench.metrics import METRICS  # numpy comes with it: most suites report nothing

    found = []
    for table in tables:
        place = f"{where}: reported numbers of '{table.source}'"
        if table.metric not in METRICS:
            raise UserError(f"{place}: metric '{table.metric}' is unknown{nearest(table.metric, METRICS)}")
        for axis in (*table.by, *table.where):
            if axis not in axes:
                raise UserError(f"{place}: '{axis}' is no axis{nearest(axis, axes)} Known: {', '.join(axes)}")
        shared = {axis: str(value) for axis, value in table.where.items()}
        scale = 100 if table.percent else 1
        for keys, value in _leaves(place, table.by, table.values):
            held = METRICS[table.metric]
            if not held.low <= value / scale <= held.high:
                raise UserError(f"{place}: {value:g} is no {held.title}; is `percent = true` missing, or too much?")
            own = dict(zip(table.by, keys, strict=True))
            found.append(
                ReportedNumber(table.source, table.metric, shared | own, value / scale, table.note, table.bound)
            )
    return tuple(found)


def _leaves(
    place: str, by: Sequence[str], values: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float]]:
    """The numbers of nested tables with the keys that lead there, as deep as `by` is long."""
    if len(keys) == len(by):
        if isinstance(values, bool) or not isinstance(values, (int, float)):
            nested = f"values are nested by {', '.join(by)}" if by else "a single value is expected"
            raise UserError(f"{place}: {'.'.join(keys) or 'values'} = {values!r} is no number: {nested}")
        yield keys, float(values)
    elif not isinstance(values, Mapping):
        raise UserError(f"{place}: {'.'.join(keys) or 'values'} = {values!r} is no table by {by[len(keys)]}")
    else:
        for key, inner in values.items():
            yield from _leaves(place, by, inner, (*keys, str(key)))

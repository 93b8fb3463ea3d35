"""Numbers that papers report: the tables `[[reported]]` of suites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.api.errors import UserError, choice

Kind = Literal["absolute", "order", "behaviour"]
MEANINGS: Mapping[Kind, str] = {
    "absolute": "data, split, network and recipe are the paper's, so that the numbers can be compared",
    "order": "data, network or scale differ, so that only the order of the rows can be compared",
    "behaviour": "only a statement of the paper can be checked, by a threshold that HashDoor chose",
}


class ReportedTable(BaseModel):
    """One table of a paper, or a part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Annotated[str, Field(min_length=1)]
    """Paper and table."""
    kind: Kind
    """What can be compared: "absolute": the numbers, "order": the order of the rows, "behaviour": a statement."""
    metric: str
    """The metric of `bench list metrics` that follows the paper's convention."""
    by: list[str] = []
    """Axes of the nested tables in `values`, outermost first, for example ["method", "bits"]."""
    where: dict[str, str | int] = {}
    """Values of axes that all numbers of the table share."""
    percent: bool = False
    """Whether the numbers are in percent."""
    bound: Literal["", "at least", "at most"] = ""
    """Use "at least" or "at most" if the paper gives only a bound, and for the threshold of a statement."""
    statement: str = ""
    """The statement of the paper; for "behaviour" and nothing else. It holds if the measured numbers keep the bound."""
    note: str = ""
    """Text beside the numbers."""
    values: dict[str, Any] | float
    """The numbers, nested by the axes of `by`."""


@dataclass(frozen=True)
class ReportedNumber:
    """A number of a paper, or the threshold of a statement, in the metric's unit.

    axes: the values that a trial must match (see `reports.reported`).
    """

    source: str
    metric: str
    axes: Mapping[str, str]
    value: float
    note: str
    bound: Literal["", "at least", "at most"] = ""
    _: KW_ONLY
    kind: Kind
    statement: str = ""

    def holds(self, measured: float) -> bool | None:
        """Whether a measured number keeps the bound; None without a bound."""
        if not self.bound:
            return None
        return measured >= self.value if self.bound == "at least" else measured <= self.value


def reported_numbers(where: str, tables: Sequence[ReportedTable], axes: Sequence[str]) -> tuple[ReportedNumber, ...]:
    """All numbers of the tables.

    where: the name of the suite, for errors. axes: the names of all axes. UserError: a metric or an axis is unknown, or
    a value is out of range.
    """
    if not tables:
        return ()
    from bench.metrics import METRICS  # slow, and most suites report nothing

    found = []
    for table in tables:
        place = f"{where}: reported numbers of '{table.source}'"
        if (table.kind == "behaviour") != bool(table.statement) or (table.statement and not table.bound):
            raise UserError(
                f"{place}: kind '{table.kind}' with statement '{table.statement}' and bound '{table.bound}'",
                "kind 'behaviour' needs a statement and a bound, other kinds have no statement",
            )
        if table.metric not in METRICS:
            raise UserError(f"{place}: metric '{table.metric}' is unknown", choice(table.metric, METRICS))
        for axis in (*table.by, *table.where):
            if axis not in axes:
                raise UserError(f"{place}: '{axis}' is no axis", choice(axis, axes))
        shared = {axis: str(value) for axis, value in table.where.items()}
        scale = 100 if table.percent else 1
        for keys, value in _leaves(place, table.by, table.values):
            held = METRICS[table.metric]
            if not held.low <= value / scale <= held.high:
                fix = "remove `percent = true`" if table.percent else "set `percent = true`"
                raise UserError(
                    f"{place}: {value:g} is out of the range of '{held.title}', {held.range}: {fix} or check the number"
                )
            own = dict(zip(table.by, keys, strict=True))
            found.append(
                ReportedNumber(
                    table.source,
                    table.metric,
                    shared | own,
                    value / scale,
                    table.note,
                    table.bound,
                    kind=table.kind,
                    statement=table.statement,
                )
            )
    return tuple(found)


def _leaves(
    place: str, by: Sequence[str], values: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float]]:
    """The numbers of nested tables, each with its keys, one for each axis of `by`."""
    if len(keys) == len(by):
        if isinstance(values, bool) or not isinstance(values, (int, float)):
            nested = f"a number for each {', '.join(by)}" if by else "a single number"
            raise UserError(f"{place}: {'.'.join(keys) or 'values'} = {values!r}: expected {nested}")
        yield keys, float(values)
    elif not isinstance(values, Mapping):
        raise UserError(f"{place}: {'.'.join(keys) or 'values'} = {values!r}: expected a table by {by[len(keys)]}")
    else:
        for key, inner in values.items():
            yield from _leaves(place, by, inner, (*keys, str(key)))

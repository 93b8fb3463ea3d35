"""What a metric is, and how one is declared: a decorated function in a module of this package or in a plugin.

    @metric("hits_at_1", title="hits@1", section="Benign queries", meaning="share of benign queries whose first ...")
    def hits_at_1(codes: ModelCodes) -> float | None: ...

The type of the function's argument says what it is computed from: `ModelCodes` (the codes of one model), `TrialFacts`
(everything that a trial left), or `DetectorScores` (one score of an input detector). The harness calls the function for
every trial; records, boards, `bench show`, `bench list metrics`, notebooks and the HTML page follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from numbers import Integral
from typing import Any, Literal, TypeVar

from bench.api import registry
from bench.api.errors import UserError

__all__ = ["METRICS", "Group", "Metric", "Number", "all_groups", "count", "metric", "metrics_of", "with_control"]

Number = float | int | None
SECTIONS = (  # in the order in which they are shown; a plugin's section follows
    "Benign queries", "Triggered queries", "Code geometry", "Health of the victim", "Input detection", "Data filtering",
    "Model detection", "Poisoning and stealth",
)  # fmt: skip
SOURCES = ("ModelCodes", "TrialFacts", "DetectorScores")  # of bench.metrics.context
RESERVED = "detectors"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """What a number means.

    name: its key in records and frames. title: its name on boards. meaning: one sentence that stands alone.
    section: the part of `bench show` and of the documents that it belongs to. low, high: its range.
    direction: +1 if more of it is good, -1 if less of it is good, 0 if neither.
    control: the same number on the clean model, where it is computed there too.
    """

    name: str
    title: str
    meaning: str
    section: str
    unit: str = ""
    direction: Literal[-1, 0, 1] = 1
    low: float = 0.0
    high: float = 1.0
    control: Metric | None = None

    @property
    def range(self) -> str:
        """Its range in print."""
        return f"{self.low:g} to {self.high:g}"

    @property
    def better(self) -> str:
        """Which way is good, in print: "more", "less", or "" for neither."""
        return {1: "more", -1: "less", 0: ""}[self.direction]


@dataclass(frozen=True)
class Group:
    """A function and the metrics that it gives, by what it is computed from (the name of its argument's type)."""

    function: Callable[[Any], Any]
    metrics: tuple[Metric, ...]
    source: str

    def values(self, of: Any) -> dict[str, Number]:
        """The numbers by name; nothing where the function gives None for a group that does not apply."""
        found = self.function(of)
        if len(self.metrics) == 1 and not isinstance(found, Mapping):
            found = {self.metrics[0].name: found}
        if found is None:
            return {}
        names = {one.name for one in self.metrics}
        if not set(found) <= names:
            raise ValueError(f"{self.function.__name__} gives {sorted(set(found) - names)}, which it does not declare")
        return {name: _number(name, value) for name, value in found.items()}

    def control_values(self, of: Any) -> dict[str, Number]:
        """The numbers of the clean model, under the names of the controls; nothing where no metric has one."""
        twins = {one.name: one.control.name for one in self.metrics if one.control is not None}
        return {twins[name]: value for name, value in self.values(of).items() if name in twins} if twins else {}


def _number(name: str, value: Any) -> Number:
    """A number as JSON holds it, whichever library computed it; None for NaN, which is no result."""
    if value is None or isinstance(value, (int, float)):
        return None if isinstance(value, float) and math.isnan(value) else value
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metric '{name}' gave {value!r}: a metric gives a number or None") from None


def with_control(one: Metric, **changes: Any) -> Metric:
    """The metric with its control: the same number on the clean model. changes: where the control's record differs."""
    usual: dict[str, Any] = {
        "name": f"{one.name}_control",
        "title": f"{one.title} control",
        "meaning": f"clean model, same trigger and target: {one.meaning}",
    }
    return replace(one, control=replace(one, **(usual | changes)))


def metrics_of(*declared: Metric) -> Callable[[F], F]:
    """Declares a function that gives several related numbers, as a mapping from their names."""

    def decorate(function: F) -> F:
        source = next(iter(function.__annotations__.values()), "")
        named = source.rpartition(".")[2] if isinstance(source, str) else source.__name__
        if named not in SOURCES:
            raise TypeError(f"the argument of '{function.__name__}' is to be annotated as one of {', '.join(SOURCES)}")
        registry.mark(function, "metrics", Group(function, declared, named))
        return function

    return decorate


def metric(
    name: str,
    *,
    title: str,
    meaning: str,
    section: str,
    unit: str = "",
    direction: Literal[-1, 0, 1] = 1,
    low: float = 0.0,
    high: float = 1.0,
    control: bool = False,
) -> Callable[[F], F]:
    """Declares a function that gives one number (see Metric). control: compute it on the clean model as well."""
    one = Metric(name, title, meaning, section, unit, direction, low, high)
    return metrics_of(with_control(one) if control else one)


def count(name: str, title: str, meaning: str, section: str, unit: str = "queries") -> Metric:
    """A number of things, which has no good direction."""
    return Metric(name, title, meaning, section, unit, 0, 0.0, math.inf)


def all_groups() -> tuple[Group, ...]:
    """Every declared group: those of this package in the order of its modules, then those of plugins."""
    return _groups(registry.generation())


@cache
def _groups(generation: int) -> tuple[Group, ...]:
    del generation  # of loaded plugins: another one means to look again
    found = list(registry.marked("metrics"))
    named = [
        (name, origin)
        for group, origin in found
        for one in group.metrics
        for name in (one.name, *([one.control.name] if one.control else []))
    ]
    for name, origin in named:
        if name == RESERVED:
            raise UserError(f"a metric is called '{name}', which names scores in records; rename it ({origin})")
    registry.require_unique("metrics", named)
    return tuple(group for group, _ in found)


class _Metrics(Mapping[str, Metric]):
    """Every metric by name, controls included, plugins' included."""

    def __getitem__(self, name: str) -> Metric:
        return _by_name(registry.generation())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_by_name(registry.generation()))

    def __len__(self) -> int:
        return len(_by_name(registry.generation()))

    def of(self, section: str) -> tuple[str, ...]:
        """The names of a section's metrics, in order, each followed by its control."""
        return tuple(name for name, one in self.items() if one.section == section)

    def controls(self) -> frozenset[str]:
        """The names of all controls."""
        return frozenset(one.control.name for one in self.values() if one.control is not None)

    def sections(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.section for one in self.values()))


@cache
def _by_name(generation: int) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for group in _groups(generation):
        for one in group.metrics:
            found[one.name] = one
            if one.control is not None:
                found[one.control.name] = one.control
    place = {section: i for i, section in enumerate(SECTIONS)}
    return dict(sorted(found.items(), key=lambda item: place.get(item[1].section, len(place))))


METRICS = _Metrics()

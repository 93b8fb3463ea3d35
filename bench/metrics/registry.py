"""Declaration of metrics by decorated functions, in a module of this package or in a plugin.

    @metric("hits_at_1", title="hits@1", section="Benign queries", meaning="share of benign queries whose first ...")
    def hits_at_1(codes: ModelCodes) -> float | None: ...

The type of the function's argument selects its input: `ModelCodes` (the codes of one model), `TrialFacts` (all results
of a trial) or `DetectorScores` (one score of an input detector). The harness calls the function for every trial, and
records, boards, `bench show`, `bench list metrics`, notebooks and the HTML page show the number.
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
SECTIONS = (  # in the order of display; sections of plugins follow
    "Benign queries", "Triggered queries", "Stored database", "Code geometry", "Health of the victim",
    "Input detection", "Data filtering", "Model detection", "Poisoning and stealth",
)  # fmt: skip
SOURCES = ("ModelCodes", "TrialFacts", "DetectorScores")  # of bench.metrics.context
RESERVED = "detectors"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """The description of a metric.

    name: key in records and frames. title: name on boards. meaning: a self-contained phrase.
    section: heading in `bench show` and in the documents. low, high: the range.
    direction: +1 if more is better, -1 if less is better, 0 if neither.
    control: the same metric on the clean model; None: it is not computed there.
    methodology: anchor of the section of the methodology with the formula; "" without one.
    whole: whether it is a whole number in every trial.
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
    methodology: str = ""
    whole: bool = False

    @property
    def range(self) -> str:
        """The range as text."""
        return f"{self.low:g} to {self.high:g}"

    @property
    def better(self) -> str:
        """The direction as text: "more", "less" or ""."""
        return {1: "more", -1: "less", 0: ""}[self.direction]


@dataclass(frozen=True)
class Group:
    """A function and the metrics that it computes. source: name of the type of its argument."""

    function: Callable[[Any], Any]
    metrics: tuple[Metric, ...]
    source: str

    def values(self, of: Any) -> dict[str, Number]:
        """The numbers by name; empty if the function returns None, i.e. the metrics do not apply."""
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
        """The numbers under the names of the controls; empty without controls. of: the input from the clean model."""
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
    """The metric with its control, the same metric on the clean model. changes: fields of the control that differ."""
    usual: dict[str, Any] = {
        "name": f"{one.name}_control",
        "title": f"{one.title} control",
        "meaning": f"clean model, same trigger and target: {one.meaning}",
    }
    return replace(one, control=replace(one, **(usual | changes)))


def metrics_of(*declared: Metric) -> Callable[[F], F]:
    """Declares a function that returns several related numbers, as a mapping from their names."""

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
    methodology: str = "",
    whole: bool = False,
) -> Callable[[F], F]:
    """Declares a function that returns one number (see Metric). control: also compute it on the clean model."""
    one = Metric(name, title, meaning, section, unit, direction, low, high, methodology=methodology, whole=whole)
    return metrics_of(with_control(one) if control else one)


def count(
    name: str,
    title: str,
    meaning: str,
    section: str,
    unit: str = "queries",
    *,
    methodology: str = "",
    expected: bool = False,
) -> Metric:
    """A metric that counts, without a better direction. expected: its expectation, no whole number."""
    return Metric(name, title, meaning, section, unit, 0, 0.0, math.inf, methodology=methodology, whole=not expected)


def all_groups() -> tuple[Group, ...]:
    """All declared groups: those of this package in the order of its modules, then those of plugins."""
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
            raise UserError(f"a metric is called '{name}', which names scores in records", f"rename it ({origin})")
    registry.require_unique("metrics", named)
    return tuple(group for group, _ in found)


class _Metrics(Mapping[str, Metric]):
    """All metrics by name, including controls and metrics of plugins."""

    def __getitem__(self, name: str) -> Metric:
        return _by_name(registry.generation())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_by_name(registry.generation()))

    def __len__(self) -> int:
        return len(_by_name(registry.generation()))

    def of(self, section: str) -> tuple[str, ...]:
        """Names of the metrics of a section, each followed by its control."""
        return tuple(name for name, one in self.items() if one.section == section)

    def of_plugins(self) -> tuple[str, ...]:
        """Names of the metrics that are not built in, each followed by its control."""
        own = __name__.rpartition(".")[0]
        built_in = {
            one.name
            for group in all_groups()
            if group.function.__module__.startswith(f"{own}.")
            for metric in group.metrics
            for one in (metric, metric.control)
            if one is not None
        }
        return tuple(name for name in self if name not in built_in)

    def controls(self) -> frozenset[str]:
        """Names of all controls."""
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

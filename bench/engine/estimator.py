"""Estimates of the time and disk space of stages, from records of similar stages and from measured costs."""

from __future__ import annotations

import json
import time
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from bench.engine.record import Record
from bench.graph.labels import CostGroup, cost_group_of

FILE = "costs.json"  # written by tests/experiments/costs.py
ENOUGH = 3  # cost groups with both kinds of times, from which the speed of this machine is known


@dataclass(frozen=True)
class MeasuredCosts:
    """Costs of stages of the shipped suites on one machine.

    calibration: seconds of `calibration` there. seconds, size: of one stage of a group; bytes of its artifact.
    """

    calibration: float
    seconds: Mapping[CostGroup, float]
    size: Mapping[CostGroup, float]


@cache
def shipped() -> MeasuredCosts:
    """The costs that were measured for this version."""
    found = json.loads(resources.files("bench.engine").joinpath(FILE).read_text(encoding="utf-8"))
    groups = {CostGroup(one["stage"], one["setting"], one["counts"]): one for one in found["groups"]}
    return MeasuredCosts(
        found["calibration"],
        {group: one["seconds"] for group, one in groups.items()},
        {group: one["bytes"] for group, one in groups.items()},
    )


@cache
def calibration() -> float:
    """Seconds that this machine needs for some training steps of a small network, on one thread."""
    import torch
    from torch import nn

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    weights = [torch.randn(shape, generator=generator).mul(0.1) for shape in ((24, 3, 3, 3), (48, 24, 3, 3))]
    times = []
    for _ in range(12):
        start = time.perf_counter()
        hidden = images
        with torch.enable_grad():
            leaves = [weight.detach().requires_grad_() for weight in weights]
            for weight in leaves:
                hidden = nn.functional.avg_pool2d(nn.functional.conv2d(hidden, weight, padding=1).relu(), 2)
            torch.autograd.grad(hidden.mean(), leaves)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return sorted(times)[len(times) // 2]


class Costs:
    """Medians of the costs of stages that are alike. scaled: costs grow with the work of a group."""

    def __init__(self, measured: Mapping[CostGroup, float] | None = None, *, scaled: bool = False) -> None:
        self._scaled = scaled
        self.exact: dict[CostGroup, list[float]] = {}  # all lists stay sorted for the median
        self._similar: dict[tuple[str, ...], list[float]] = {}
        for group, cost in (measured or {}).items():
            self.add(group, cost)

    def add(self, group: CostGroup, cost: float) -> None:
        """Add the cost of one stage."""
        insort(self.exact.setdefault(group, []), cost)
        for parts in (1, 2):
            insort(self._similar.setdefault(group[:parts], []), cost / self._work(group))

    def of(self, group: CostGroup, parts: int) -> float | None:
        """The median of the stages that share the first parts of the group; None if there are none."""
        if parts == len(group):
            return _median(known) if (known := self.exact.get(group)) else None
        similar = self._similar.get(group[:parts])
        return _median(similar) * self._work(group) if similar else None

    def _work(self, group: CostGroup) -> float:
        return group.work if self._scaled else 1.0


class RuntimeEstimator:
    """Expected seconds and bytes of stages.

    They are medians over stages of the same cost group, in the store or else among the measured costs. Without any,
    they are medians over stages of the same setting, then of the same kind, scaled to the work of the stage.
    Measured seconds are scaled to the speed of this machine.
    """

    def __init__(self, records: Iterable[Record] = (), measured: MeasuredCosts | None = None) -> None:
        """measured: by default the shipped costs."""
        self._measured = measured or shipped()
        self._seconds, self._bytes = Costs(scaled=True), Costs()
        self._scale: float | None = None  # progress displays ask for hundreds of groups after each stage
        self._known_seconds, self._known_bytes = Costs(self._measured.seconds, scaled=True), Costs(self._measured.size)
        for record in records:
            self.observe(record)

    def observe(self, record: Record) -> None:
        """Add a record. The time of a failed stage does not count."""
        group = cost_group_of(record.stage, record.spec)
        if record.artifact is not None:
            self._bytes.add(group, float(record.artifact.bytes))
        if record.ok and record.cost is not None:
            self._seconds.add(group, record.cost.seconds)
            self._scale = None

    def has_history(self, group: CostGroup) -> bool:
        """Whether a stage of this cost group has finished."""
        return group in self._seconds.exact

    def basis(self, groups: Mapping[CostGroup, int]) -> str:
        """Where the seconds of these stages come from, for the user. groups: number of stages by cost group."""
        total = sum(groups.values())
        here = sum(count for group, count in groups.items() if self.has_history(group))
        known = here + sum(
            count
            for group, count in groups.items()
            if not self.has_history(group) and group in self._known_seconds.exact
        )
        if here == total:
            return "from the times of such stages in this store"
        if known == total:
            return "from stages that were measured on another machine, scaled to this one"
        return f"a rough estimate: {total - known} of {total} stages were never measured"

    def seconds(self, group: CostGroup) -> float:
        """Expected seconds of one stage of a cost group."""
        for parts in range(len(group), 0, -1):
            if (found := self._seconds.of(group, parts)) is not None and parts > 1:
                return found
            if (known := self._known_seconds.of(group, parts)) is not None:
                return known * self.scale
        return self._seconds.of(group, 1) or 0.0

    @property
    def scale(self) -> float:
        """Seconds on this machine per second of the measured costs."""
        if self._scale is None:
            self._scale = self._speed()
        return self._scale

    def _speed(self) -> float:
        both = self._seconds.exact.keys() & self._known_seconds.exact.keys()
        if len(both) < ENOUGH:
            return calibration() / self._measured.calibration
        ratios = (_median(self._seconds.exact[one]) / _median(self._known_seconds.exact[one]) for one in both)
        return _median(sorted(ratios))

    def total(self, groups: Mapping[CostGroup, int]) -> float:
        """Expected seconds of several stages, one after the other. groups: number of stages by cost group."""
        return sum((count * self.seconds(group) for group, count in groups.items() if count), 0.0)

    def total_bytes(self, groups: Mapping[CostGroup, int]) -> float:
        """Expected bytes of the artifacts of several stages. groups: number of stages by cost group."""
        return sum((count * self._size(group) for group, count in groups.items()), 0.0)

    def _size(self, group: CostGroup) -> float:
        tries = (
            costs.of(group, parts) for parts in range(len(group), 0, -1) for costs in (self._bytes, self._known_bytes)
        )
        return next((size for size in tries if size is not None), 0.0)


def _median(ordered: Sequence[float]) -> float:
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2

"""Estimates of the time and disk space of stages, from records of similar stages in the store."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from bench.artifacts.inputs import STAGES
from bench.engine.record import Record
from bench.graph.labels import CostGroup

GUESSED_BYTES = 1e6  # of an artifact


class RuntimeEstimator:
    """Expected seconds and bytes of stages: medians over records of the same cost group.

    Without a record in the group, seconds are the median of the same kind of stage, then `guessed_seconds` of its
    inputs.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._seconds: dict[CostGroup, list[float]] = {}  # all lists stay sorted for the median
        self._seconds_of_kind: dict[str, list[float]] = {}
        self._bytes: dict[CostGroup, list[float]] = {}
        for record in records:
            self.observe(record)

    def observe(self, record: Record) -> None:
        """Add a record. The time of a failed stage does not count."""
        group = CostGroup(record.stage, record.cost_group)
        if record.artifact is not None:
            insort(self._bytes.setdefault(group, []), float(record.artifact.bytes))
        if record.ok and record.cost is not None:
            insort(self._seconds.setdefault(group, []), record.cost.seconds)
            insort(self._seconds_of_kind.setdefault(group.stage, []), record.cost.seconds)

    def has_history(self, group: CostGroup) -> bool:
        """Whether a stage of this cost group has finished."""
        return group in self._seconds

    def seconds(self, group: CostGroup) -> float:
        """Expected seconds of one stage of a cost group."""
        known = self._seconds.get(group) or self._seconds_of_kind.get(group.stage)
        return _median(known) if known else STAGES[group.stage].guessed_seconds

    def total(self, groups: Mapping[CostGroup, int]) -> float:
        """Expected seconds of several stages, one after the other. groups: number of stages by cost group."""
        return sum((count * self.seconds(group) for group, count in groups.items() if count), 0.0)

    def total_bytes(self, groups: Mapping[CostGroup, int]) -> float:
        """Expected bytes of the artifacts of several stages. groups: number of stages by cost group."""
        known = self._bytes
        sizes = (
            count * (_median(known[group]) if group in known else GUESSED_BYTES) for group, count in groups.items()
        )
        return sum(sizes, 0.0)


def _median(ordered: Sequence[float]) -> float:
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2

"""What stages will take, from what stages like them took in this store."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from bench.engine.record import Record

# Seconds of a stage where nothing like it has run yet: orders of magnitude, for small images on one CPU core.
GUESS = {
    "load": 5.0, "split": 0.1, "train": 20.0, "make_trigger": 0.1, "implant": 20.0, "encode": 2.0,
    "encode_triggered": 1.0, "defend": 5.0, "score_benign": 5.0, "score_triggered": 5.0, "measure": 0.5,
}  # fmt: skip
GUESSED_BYTES = 1e6  # of an artifact


class RuntimeEstimator:
    """Expected seconds and bytes of stages: medians over the same group of stages, else seconds of the same stage."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._seconds: dict[str, list[float]] = {}  # all lists are in order, so that the median is at hand
        self._seconds_of_stage: dict[str, list[float]] = {}
        self._bytes: dict[str, list[float]] = {}
        for record in records:
            self.observe(record)

    def observe(self, record: Record) -> None:
        if record.artifact is not None:
            insort(self._bytes.setdefault(record.group, []), float(record.artifact.bytes))
        if record.ok and record.cost is not None:
            for held, name in ((self._seconds, record.group), (self._seconds_of_stage, _stage_of(record.group))):
                insort(held.setdefault(name, []), record.cost.seconds)

    def has_history(self, group: str) -> bool:
        return group in self._seconds

    def seconds(self, group: str) -> float:
        """Of a stage of this group."""
        stage = _stage_of(group)
        known = self._seconds.get(group) or self._seconds_of_stage.get(stage)
        return _median(known) if known else GUESS[stage]

    def total(self, groups: Mapping[str, int]) -> float:
        """Seconds of so many stages of each group."""
        return sum((count * self.seconds(group) for group, count in groups.items() if count), 0.0)

    def total_bytes(self, groups: Mapping[str, int]) -> float:
        """Bytes of the artifacts of so many stages of each group."""
        known = self._bytes
        sizes = (
            count * (_median(known[group]) if group in known else GUESSED_BYTES) for group, count in groups.items()
        )
        return sum(sizes, 0.0)


def _stage_of(group: str) -> str:
    """A group's name begins with its stage."""
    return group.partition(" ")[0]


def _median(ordered: Sequence[float]) -> float:
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2

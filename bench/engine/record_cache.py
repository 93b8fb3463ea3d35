"""Caches of a store's records: each record is read once by the scheduler, recomputation and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from bench.artifacts.artifact import Artifact
from bench.artifacts.inputs import MeasureInputs
from bench.engine.record import Record, RecordSummary, Status
from bench.engine.store import Store

Kept = TypeVar("Kept", bound=Record | RecordSummary)
Outcome = tuple[Status, str, Record | None]  # status, reason and record of a trial


class KeptRecords(Generic[Kept]):
    """Caches `keep(record)` of each record, since the records of a large plan may not fit into memory."""

    def __init__(self, store: Store, keep: Callable[[Record], Kept]) -> None:
        self.store, self._keep = store, keep
        self._kept: dict[str, Kept | None] = {}
        self._whole: dict[str, bool] = {}

    def record(self, key: str) -> Kept | None:
        """The kept part of a record; None if the store has no such record."""
        if key not in self._kept:
            found = self.store.record(key)
            self._kept[key] = self._keep(found) if found is not None else None
        return self._kept[key]

    def whole(self, record: Kept) -> bool:
        """Whether the record's artifact exists and matches its checksum. Each file is checked once."""
        if record.key not in self._whole:
            self._whole[record.key] = self.store.whole(record)
        return self._whole[record.key]


class RecordCache(KeptRecords[Record]):
    """Caches whole records, and finds records through others."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, lambda record: record)
        self._outcomes: dict[str, Outcome] = {}

    def behind(self, artifact: Artifact | None) -> Record | None:
        """The record of the stage that wrote an artifact; None if there is none."""
        return self.record(artifact.key) if artifact is not None and artifact.key else None

    def implant(self, record: Record | None) -> Record | None:
        """The record of the `implant` stage of a trial; None for a trial without an attack."""
        return self.behind(MeasureInputs.of(record.parents).implant) if record is not None else None

    def current(self, record: Record) -> bool:
        """Whether the stage and all its ancestors read the artifacts whose records the store holds now.

        A merged store may hold the codes of one machine and the metrics of another.
        """
        seen, waiting = {record.key}, [record]
        while waiting:
            one = waiting.pop()
            for role, key in one.parents.items():
                parent = self.record(key)
                if parent is None or not parent.ok:
                    continue
                if one.inputs.get(role) != parent.checksum:
                    return False
                if key not in seen:
                    seen.add(key)
                    waiting.append(parent)
        return True

    def status_of(self, key: str) -> Outcome:
        """Status, reason and record of a trial.

        A trial that a failed stage blocked counts as missing once that stage has succeeded. So does a trial if its
        inputs were replaced.
        """
        if key not in self._outcomes:
            self._outcomes[key] = self._status_of(key)
        return self._outcomes[key]

    def has_result(self, key: str | None) -> bool:
        """Whether a trial has a result. key: None for a trial that cannot run."""
        return key is not None and self.status_of(key)[0] is Status.OK

    def _status_of(self, key: str) -> Outcome:
        record = self.record(key)
        if record is None:
            return Status.MISSING, "not run yet: start the same command again", None
        cause = self.record(record.cause) if record.cause else None
        if not record.ok and cause is not None and cause.ok:
            return (
                Status.MISSING,
                "not run yet, although its inputs are there now: start the same command again",
                record,
            )
        if record.ok and not self.current(record):
            replaced = "its inputs were replaced by those of another run or machine: start the same command again"
            return Status.MISSING, replaced, record
        return record.status, record.reason, record

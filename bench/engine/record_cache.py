"""Records of a store, each read once: for the scheduler, recomputation and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from bench.artifacts.artifact import Artifact
from bench.artifacts.inputs import MeasureInputs
from bench.engine.record import Record, RecordSummary, Status
from bench.engine.store import Store

Kept = TypeVar("Kept", bound=Record | RecordSummary)


class KeptRecords(Generic[Kept]):
    """What `keep` makes of each record: a plan may have more of them than fit into memory."""

    def __init__(self, store: Store, keep: Callable[[Record], Kept]) -> None:
        self.store, self._keep = store, keep
        self._kept: dict[str, Kept | None] = {}
        self._whole: dict[str, bool] = {}

    def record(self, key: str) -> Kept | None:
        """None where the store has no such record."""
        if key not in self._kept:
            found = self.store.record(key)
            self._kept[key] = self._keep(found) if found is not None else None
        return self._kept[key]

    def whole(self, record: Kept) -> bool:
        """Whether the record's artifact is there and matches its checksum; a file is read once for that."""
        if record.key not in self._whole:
            self._whole[record.key] = self.store.whole(record)
        return self._whole[record.key]


class RecordCache(KeptRecords[Record]):
    """Whole records, and what follows from several of them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, lambda record: record)

    def behind(self, artifact: Artifact | None) -> Record | None:
        """The record of the stage that left an artifact."""
        return self.record(artifact.key) if artifact is not None and artifact.key else None

    def implant(self, record: Record | None) -> Record | None:
        """The record of a trial's attack; None for a trial without one."""
        return self.behind(MeasureInputs.of(record.parents).implant) if record is not None else None

    def status_of(self, key: str) -> tuple[Status, str, Record | None]:
        """Status, reason and record of a trial. What a failure blocked that is one no longer has not been run yet."""
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
        return record.status, record.reason, record

"""The driver of a run: chooses the stages that still have to run, orders them, and records failures."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from bench.engine.executors import Done, Executor
from bench.engine.interruption import Interruption
from bench.engine.record import LASTING_FAILURES, Record, RecordSummary, Status, summary_of
from bench.engine.record_cache import KeptRecords
from bench.engine.store import Store
from bench.engine.worker import describe
from bench.graph.plan import Plan, Stage

RESUBMISSIONS = 2  # of a killed stage in one run


@dataclass
class Summary:
    """The results of a run.

    ran: number of stages that ended, by status. reused: number of stages that the store already held. trials: number
    of trials by status. collapsed: number of trials whose model did not learn, which boards leave out of every mean.
    failures: of stages.
    """

    ran: Counter[Status] = field(default_factory=Counter)
    reused: int = 0
    trials: Counter[Status] = field(default_factory=Counter)
    collapsed: int = 0
    failures: list[RecordSummary] = field(default_factory=list)


def outcome(plan: Plan, records: KeptRecords[RecordSummary], key: str) -> RecordSummary | None:
    """The record that tells a stage's status: its own or that of a failed ancestor; None if there is neither."""
    own = records.record(key)
    if own is not None and own.ok:
        return own
    for parent in plan.stages[key].parents.values():
        decided = outcome(plan, records, parent)
        if decided is not None and not decided.ok:
            return decided
    return own


class Frontier:
    """The stages that a plan still has to run.

    These are the stages of trials without a result, and the stages whose artifacts they need and the store lacks.
    retry: the statuses of failed stages that run again.
    """

    def __init__(self, plan: Plan, store: Store, retry: Collection[Status | str]) -> None:
        self.plan, self.store = plan, store
        self.records = KeptRecords(store, summary_of)
        self.needed: dict[str, Stage] = {}
        self.failed: dict[str, RecordSummary] = {}
        self._retry = retry
        self._fresh: dict[str, bool] = {}
        for trial in plan.trials:
            if trial.key is not None:
                self._want(trial.key)

    def _want(self, key: str) -> None:
        """Mark a stage and the inputs that it needs, unless the store has its result."""
        todo = [(key, False)]
        while todo:
            current, as_input = todo.pop()
            if current in self.needed or current in self.failed:
                continue
            record = self.records.record(current)
            if record is not None and self._answers(current, record, as_input):
                continue
            if record is not None and self._stays_failed(record):
                self.failed[current] = record
                continue
            self.needed[current] = self.plan.stages[current]
            todo += [(parent, True) for parent in self.plan.stages[current].parents.values()]

    def _stays_failed(self, record: RecordSummary) -> bool:
        return record.status in LASTING_FAILURES and record.status not in self._retry and record.cause is None

    def _answers(self, key: str, record: RecordSummary, as_input: bool) -> bool:
        """Whether the store has a stage's result. For an input of another stage, the artifact must exist too."""
        if not record.ok or not self._current(key, record):
            return False
        if as_input and not self.records.whole(record):
            self.store.set_aside_artifact(record)
            return False
        return True

    def _current(self, key: str, record: RecordSummary) -> bool:
        """Whether the stage and all its ancestors read the artifacts that the store holds now.

        A stage that ran again may have another artifact, for example because another kind of machine ran it.
        """
        if key not in self._fresh:
            held = {role: self.records.record(parent) for role, parent in self.plan.stages[key].parents.items()}
            self._fresh[key] = all(
                record.inputs.get(role) == parent.checksum and self._current(parent.key, parent)
                for role, parent in held.items()
                if parent is not None and parent.ok
            )
        return self._fresh[key]

    def blocked_by(self, stage: Stage) -> RecordSummary | None:
        """The record of a failed stage that this one reads; None if there is none."""
        for parent in stage.parents.values():
            if parent in self.failed:
                return self.failed[parent]
        return None


@runtime_checkable
class ProgressListener(Protocol):
    """Receives the events of a run, for progress displays."""

    def begin(self, stages: list[Stage]) -> None:
        """The run begins. stages: those that it has to run."""

    def start(self, stage: Stage) -> None: ...

    def retrying(self, stage: Stage, reason: str) -> None:
        """A killed stage is submitted again."""

    def end(self, stage: Stage, record: Record) -> None:
        """A stage has its record, because it ended or because a failed stage blocks it."""


class NoProgress:
    """A listener that ignores all events."""

    def begin(self, stages: list[Stage]) -> None: ...

    def start(self, stage: Stage) -> None: ...

    def retrying(self, stage: Stage, reason: str) -> None: ...

    def end(self, stage: Stage, record: Record) -> None: ...


def run_plan(
    plan: Plan,
    store: Store,
    make_executor: Callable[[], Executor],
    *,
    retry: Collection[Status | str] = (),
    listen: ProgressListener | None = None,
    interruption: Interruption | None = None,
) -> Summary:
    """Run the stages of a plan that the store lacks.

    make_executor: called only if a stage has to run. retry: the statuses of failed stages that run again.
    interruption: a request to stop, which ends the run with KeyboardInterrupt. StoreError ends it too.
    """
    interruption = interruption or Interruption()
    driver = _Driver(plan, store, Frontier(plan, store, retry), listen or NoProgress(), interruption)
    driver.run(make_executor)
    if driver.remade and Frontier(plan, store, ()).needed:
        # a lost artifact was made again and differs, because another kind of machine ran the stage for example:
        # results from the old artifact must be made again too, or a board would mix both
        again = run_plan(plan, store, make_executor, listen=listen, interruption=interruption)
        again.ran += driver.summary.ran
        again.failures += driver.summary.failures
        return again
    return driver.summary


class _Driver:
    def __init__(
        self, plan: Plan, store: Store, pending: Frontier, listener: ProgressListener, interruption: Interruption
    ) -> None:
        self._interruption = interruption
        self._plan, self._store, self._pending, self._listener = plan, store, pending, listener
        self._keys = list(plan.stages)
        self._position = {key: number for number, key in enumerate(self._keys)}
        self._waits = {
            key: {parent for parent in stage.parents.values() if parent in pending.needed}
            for key, stage in pending.needed.items()
        }
        self._ready = [self._position[key] for key, parents in self._waits.items() if not parents]  # a heap
        heapq.heapify(self._ready)
        self._tries: Counter[str] = Counter()
        self.remade = False  # whether an artifact was made again and differs
        self.summary = Summary(reused=len(plan.stages) - len(pending.needed))

    def run(self, make_executor: Callable[[], Executor]) -> None:
        self._listener.begin(list(self._pending.needed.values()))
        for key, stage in self._pending.needed.items():
            cause = self._pending.blocked_by(stage)
            if key not in self._pending.failed and cause is not None:
                self._block(stage, cause)
        if any(key not in self._pending.failed for key in self._pending.needed):
            executor = make_executor()
            try:
                self._interruption.open()
                self._work(executor)
            finally:
                self._interruption.close()
                executor.close()
            self._interruption.check()
        records = KeptRecords(self._store, summary_of)  # a new cache, since records have changed
        for trial in self._plan.trials:
            if trial.key is None:
                self.summary.trials[Status.SKIPPED] += 1
                continue
            decided = outcome(self._plan, records, trial.key)
            self.summary.trials[decided.status if decided else Status.MISSING] += 1
            self.summary.collapsed += bool(decided and decided.collapsed)

    def _work(self, executor: Executor) -> None:
        """Keep the executor full until no stage is left. Stages start in the plan's order."""
        running: set[str] = set()
        while self._ready or running:
            while self._ready:
                stage = self._plan.stages[self._keys[self._ready[0]]]
                if stage.key not in self._pending.failed and not executor.fits(stage):
                    break
                heapq.heappop(self._ready)
                if stage.key in self._pending.failed:
                    continue
                self._tries[stage.key] += 1
                running.add(stage.key)
                self._listener.start(stage)
                executor.submit(stage)
            for done in executor.poll(0.5):
                running.discard(done.key)
                self._finish(done)
            self._interruption.check()

    def _finish(self, done: Done) -> None:
        stage = self._plan.stages[done.key]
        record = done.record
        if record is None:
            if done.status is Status.KILLED and self._tries[stage.key] <= RESUBMISSIONS:
                heapq.heappush(self._ready, self._position[stage.key])
                self._listener.retrying(stage, done.reason)
                return
            record = self._store.commit(describe(stage, done.status, done.reason, done.log))
        before = self._pending.records.record(stage.key)
        if before is not None and before.ok and record.ok:
            self.remade |= before.checksum != record.checksum
        self.summary.ran[record.status] += 1
        if not record.ok:
            self.summary.failures.append(summary_of(record))
        self._listener.end(stage, record)
        self._propagate(stage, record)

    def _propagate(self, stage: Stage, record: Record) -> None:
        """Release the stages that wait for a finished stage, or block them if it failed."""
        if not record.ok:
            self._pending.failed[stage.key] = summary_of(record)
        for child in self._plan.children[stage.key]:
            if child not in self._waits:
                continue
            if not record.ok:
                if child not in self._pending.failed:
                    self._block(self._plan.stages[child], self._pending.failed[stage.key])
                continue
            self._waits[child].discard(stage.key)
            if not self._waits[child]:
                heapq.heappush(self._ready, self._position[child])

    def _block(self, stage: Stage, cause: RecordSummary) -> None:
        """Record that a stage cannot run: its record has the status of the failed stage, and names that stage."""
        why = cause.reason if cause.cause else f"{cause.label}: {cause.reason}"
        record = describe(stage, cause.status, why, cause=cause.cause or cause.key)
        self._store.commit(record)
        self._listener.end(stage, record)
        self._propagate(stage, record)

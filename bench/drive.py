"""The driver: which stages still have to run, in what order, and what a failure means for the others."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from statistics import median

from bench.execute import Done, Executor
from bench.plan import Plan, Stage
from bench.store import KEPT, Record, Store
from bench.work import describe

RESUBMISSIONS = 2  # how often a killed stage is tried again in the same run

# Seconds of a stage where nothing like it has run yet: orders of magnitude, for small images on one CPU core.
GUESS = {"load": 5, "split": 1, "train": 60, "prepare": 1, "implant": 60, "encode": 5, "stamp": 2, "defend": 10,
         "screen": 20, "measure": 2}  # fmt: skip


@dataclass
class Summary:
    """What a run did. reused: stages found in the store; trials: outcomes of the plan's cells by status."""

    ran: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    trials: Counter[str] = field(default_factory=Counter)
    failures: list[Record] = field(default_factory=list)


class Costs:
    """Expected seconds of a stage, from the stages that this store has seen."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._seen: dict[str, list[float]] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        if record["status"] == "ok":
            for name in (record["group"], record["stage"]):
                self._seen.setdefault(name, []).append(record["cost"]["seconds"])

    def seconds(self, stage: Stage) -> float:
        for name in (stage.group, stage.kind):
            if name in self._seen:
                return median(self._seen[name])
        return GUESS[stage.kind]

    def knows(self, stage: Stage) -> bool:
        return stage.group in self._seen


def outcome(plan: Plan, store: Store, key: str, records: dict[str, Record | None]) -> Record | None:
    """The record that decides a stage: its own, or the failed ancestor's; None where neither is there."""
    if key not in records:
        records[key] = store.record(key)
    own = records[key]
    if own is not None and own["status"] == "ok":
        return own
    for parent in plan.stages[key].parents.values():
        decided = outcome(plan, store, parent, records)
        if decided is not None and decided["status"] != "ok":
            return decided
    return own


class Pending:
    """The stages that a plan still needs: those without a result that some wanted stage reads."""

    def __init__(self, plan: Plan, store: Store, retry: Collection[str]) -> None:
        self.plan, self.store = plan, store
        self.records: dict[str, Record | None] = {}
        self.needed: dict[str, Stage] = {}
        self.failed: dict[str, Record] = {}
        self._retry = retry
        self._intact: dict[str, bool] = {}
        for cell in plan.cells:
            if cell.key is not None:
                self._want(cell.key)

    def _want(self, key: str) -> None:
        """Mark a stage as needed unless the store answers for it."""
        todo = [(key, False)]
        while todo:
            current, as_input = todo.pop()
            if current in self.needed or current in self.failed:
                continue
            record = self.record(current)
            if record is not None and record["status"] == "ok" and (not as_input or self._whole(current, record)):
                continue
            if record is not None and record["status"] in KEPT and record["status"] not in self._retry:
                if "cause" not in record:
                    self.failed[current] = record
                    continue
            self.needed[current] = self.plan.stages[current]
            todo += [(parent, True) for parent in self.plan.stages[current].parents.values()]

    def record(self, key: str) -> Record | None:
        if key not in self.records:
            self.records[key] = self.store.record(key)
        return self.records[key]

    def _whole(self, key: str, record: Record) -> bool:
        if key not in self._intact:
            self._intact[key] = self.store.intact(record)
        return self._intact[key]

    def blocked_by(self, stage: Stage) -> Record | None:
        for parent in stage.parents.values():
            if parent in self.failed:
                return self.failed[parent]
        return None


Listener = Callable[[str, Stage, Record | None], None]


def drive(
    plan: Plan,
    store: Store,
    make_executor: Callable[[], Executor],
    *,
    retry: Collection[str] = (),
    listen: Listener = lambda *_: None,
) -> Summary:
    """Run what is missing. An executor is started only if there is work; KeyboardInterrupt and StoreError stop it."""
    pending = Pending(plan, store, retry)
    summary = Summary(reused=len(plan.stages) - len(pending.needed))
    position = {key: number for number, key in enumerate(plan.stages)}
    waits = {key: {p for p in stage.parents.values() if p in pending.needed} for key, stage in pending.needed.items()}
    ready = [position[key] for key, parents in waits.items() if not parents]
    heapq.heapify(ready)
    keys = list(plan.stages)
    tries: Counter[str] = Counter()
    executor: Executor | None = None
    running: set[str] = set()

    def settle(stage: Stage, record: Record) -> None:
        """A stage has a final record: release or block what waits for it."""
        if record["status"] == "ok":
            for child in plan.children[stage.key]:
                if child in waits:
                    waits[child].discard(stage.key)
                    if not waits[child]:
                        heapq.heappush(ready, position[child])
        else:
            pending.failed[stage.key] = record
            for child in plan.children[stage.key]:
                if child in waits and child not in pending.failed:
                    block(plan.stages[child], record)

    def block(stage: Stage, cause: Record) -> None:
        """What depends on a failure is a record of the same status that names it, and is looked at again next time."""
        root = cause.get("cause", cause["key"])
        why = cause["reason"] if "cause" in cause else f"{cause['label']}: {cause['reason']}"
        record = describe(stage) | {"status": cause["status"], "reason": why, "log": "", "cause": root}
        store.write_record(record)
        listen("blocked", stage, record)
        settle(stage, record)

    def finish(done: Done) -> None:
        stage = plan.stages[done.key]
        record = done.record
        if record is None:
            record = describe(stage) | {"status": done.status, "reason": done.reason, "log": ""}
            if done.status == "killed" and tries[stage.key] <= RESUBMISSIONS:
                heapq.heappush(ready, position[stage.key])
                listen("again", stage, record)
                return
            store.write_record(record)
        summary.ran[record["status"]] += 1
        if record["status"] != "ok":
            summary.failures.append(record)
        listen("done", stage, record)
        settle(stage, record)

    for key, stage in pending.needed.items():
        if key not in pending.failed and (cause := pending.blocked_by(stage)) is not None:
            block(stage, cause)
    try:
        while ready or running:
            if executor is None:
                executor = make_executor()
            while ready and len(running) < executor.slots:
                stage = plan.stages[keys[heapq.heappop(ready)]]
                if stage.key in pending.failed:
                    continue
                tries[stage.key] += 1
                running.add(stage.key)
                listen("start", stage, None)
                executor.submit(stage)
            for done in executor.poll(0.5):
                running.discard(done.key)
                finish(done)
    finally:
        if executor is not None:
            executor.close()
    records: dict[str, Record | None] = {}
    for cell in plan.cells:
        if cell.key is None:
            summary.trials["skipped"] += 1
        else:
            decided = outcome(plan, store, cell.key, records)
            summary.trials[decided["status"] if decided else "missing"] += 1
    return summary

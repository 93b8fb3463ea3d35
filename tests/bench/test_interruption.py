"""Requests to stop a run: one KeyboardInterrupt each, none while the run stops, and none is lost."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from bench.engine import executors, interruption
from bench.engine.interruption import Interruption
from bench.engine.record import Record, Status
from bench.engine.scheduler import NoProgress, run_plan
from bench.engine.store import Store
from bench.engine.worker import Environment, run_stage
from bench.graph.plan import Stage


class Destroyed:
    """Calls something in its destructor, where exceptions are only printed."""

    def __init__(self, call) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


def test_requests_within_two_seconds_are_one_and_later_ones_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now, request = [10.0], Interruption()
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    request.check()
    with pytest.raises(KeyboardInterrupt):
        request.ask()
    now[0] += 1
    request.ask()
    now[0] += 2
    with pytest.raises(KeyboardInterrupt):
        request.ask()
    with pytest.raises(KeyboardInterrupt):
        request.check()
    request.close()
    now[0] += 5
    request.ask()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_destructor_swallows_stops_the_run_after_the_stage(tmp_path: Path, tiny) -> None:
    store, plan, request = Store(tmp_path / "store", create=True), tiny(), Interruption()
    ended: list[str] = []

    class Unlucky(NoProgress):
        def start(self, stage: Stage) -> None:
            if stage.kind == "train":
                Destroyed(request.ask)

        def end(self, stage: Stage, record: Record) -> None:
            ended.append(stage.kind)

    where = Environment(store.root, None, "cpu")
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, store, lambda: executors.SerialExecutor(where, request), listen=Unlucky(), interruption=request)
    assert ended[-1] == "train", "the stage that ran is kept, and no other starts"
    assert run_plan(plan, store, lambda: executors.SerialExecutor(where)).trials == {"ok": 2}


def test_a_request_while_the_executor_closes_ends_the_run_and_not_the_closing(tmp_path: Path, tiny) -> None:
    store, plan, request, closed = Store(tmp_path / "store", create=True), tiny(), Interruption(), []

    class Slow(executors.SerialExecutor):
        def close(self) -> None:
            request.ask()
            closed.append(True)

    where = Environment(store.root, None, "cpu")
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, store, lambda: Slow(where, request), interruption=request)
    assert closed


def test_a_second_run_with_the_same_request_can_be_interrupted_at_once(tmp_path: Path, tiny) -> None:
    """As where an artifact differs and the plan is run again."""
    store, plan, request = Store(tmp_path / "store", create=True), tiny(), Interruption()
    where = Environment(store.root, None, "cpu")

    def start() -> executors.SerialExecutor:
        return executors.SerialExecutor(where, request)

    run_plan(plan, store, start, interruption=request)
    wider, ended = tiny("attacks=none,badnets", "seeds=1"), []

    class Impatient(NoProgress):
        def start(self, stage: Stage) -> None:
            request.ask()

        def end(self, stage: Stage, record: Record) -> None:
            ended.append(stage.kind)

    with pytest.raises(KeyboardInterrupt):
        run_plan(wider, store, start, listen=Impatient(), interruption=request)
    assert not ended


def test_an_executor_of_this_process_knows_the_request(tmp_path: Path, tiny, monkeypatch) -> None:
    from bench.stages import split

    store, plan, request = Store(tmp_path / "store", create=True), tiny(), Interruption()

    def disturbed(*_: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            request.ask()
        raise ValueError("what a library made of the interrupt")

    monkeypatch.setattr(split, "run", disturbed)
    where = Environment(store.root, None, "cpu")
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, store, lambda: executors.SerialExecutor(where, request), interruption=request)
    assert {record.status for record in store.records()} == {Status.OK}


def test_an_error_that_an_interrupt_became_outside_a_stage_is_the_interrupt() -> None:
    """Python turns an interrupt inside the import of a class into a RuntimeError."""
    request = Interruption()

    def asked() -> None:
        try:
            request.ask()
        except KeyboardInterrupt:
            raise RuntimeError("Error calling __set_name__") from None

    with pytest.raises(RuntimeError), request.kept():
        raise RuntimeError("an error of its own")
    with pytest.raises(KeyboardInterrupt), request.kept():
        asked()


def test_an_error_that_an_interrupt_became_is_no_failure_of_the_stage(tmp_path: Path, tiny, monkeypatch) -> None:
    from bench.stages import split

    store, plan, request = Store(tmp_path / "store", create=True), tiny(), Interruption()
    where = Environment(store.root, None, "cpu")
    stages = {stage.kind: stage for stage in plan.stages.values()}
    assert run_stage(stages["load"], where, request).ok

    def disturbed(*_: object) -> None:
        try:
            request.ask()
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of an object") from None

    monkeypatch.setattr(split, "run", disturbed)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stages["split"], where, request)
    assert store.record(stages["split"].key) is None
    assert run_stage(stages["split"], where, Interruption()).status is Status.FAILED, "without a request it is one"

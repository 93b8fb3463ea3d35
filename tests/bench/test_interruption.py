"""Requests to stop a run: one KeyboardInterrupt each, none while the run stops, and none is lost."""

from __future__ import annotations

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

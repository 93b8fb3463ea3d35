"""What a run shows while it runs: kinds of stages, first results, and failures as they come."""

from __future__ import annotations

import pytest

from bench.cli import progress
from bench.cli.progress import Display
from bench.engine.estimator import RuntimeEstimator
from bench.graph.labels import CostGroup
from bench.graph.plan import Stage
from tests.stores import record


def stage(key: str, kind: str) -> Stage:
    return Stage(
        kind=kind, key=key, spec={}, parents={}, modules=(), code="c", label=f"{kind} {key}",
        cost_group=CostGroup(kind, "", ""), threads=1, num_gpus=0, timeout=1,
    )  # fmt: skip


def test_a_pipe_gets_counts_first_results_and_failures(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", -1.0)
    stages = [stage("aa", "train"), stage("bb", "measure"), stage("cc", "measure")]
    with Display(RuntimeEstimator(()), {"bb": "badnets"}) as display:
        display.begin(stages)
        for one in stages:
            display.start(one)
        display.end(stages[0], record("aa", "train"))
        display.end(stages[1], record("bb", "measure", metrics={"t_map": 0.75}))
        display.end(stages[2], record("cc", "measure", status="failed", reason="no memory"))
    said = capsys.readouterr().err
    assert "done: train 0/1 · measure 0/2" in said
    assert "2 of 3 stages" in said
    assert "measure 1/2; t-mAP so far: badnets 0.75" in said
    assert "failed: measure cc: no memory" in said
    assert "train 1/1" not in said  # what is done needs no room

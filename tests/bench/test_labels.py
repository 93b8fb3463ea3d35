"""Stages in print, and which of them cost about the same."""

from __future__ import annotations

from collections.abc import Callable

from bench.graph.labels import cost_group_of, label_of
from bench.graph.plan import Plan


def test_a_label_names_components_length_target_and_seed(tiny: Callable[..., Plan]) -> None:
    plan = tiny("attacks=badnets", "defenses=fine_pruning", "targets=3", "seeds=7")
    labels = {stage.kind: stage.label for stage in plan.stages.values()}
    assert labels["implant"] == "implant badnets digits convnet csq 12 bits target 3 seed 7"
    assert labels["encode"] == "encode digits convnet csq 12"
    assert labels["load"] == "load digits"
    assert {label_of(stage.kind, stage.spec) for stage in plan.stages.values()} == {
        *(s.label for s in plan.stages.values())
    }


def test_stages_of_a_cost_group_differ_in_what_costs_nothing(tiny: Callable[..., Plan]) -> None:
    one, other = (
        tiny("attacks=badnets", *changes) for changes in (["seeds=0,1", "targets=0,1"], ["training.epochs=9"])
    )
    groups = {stage.cost_group for stage in one.stages.values()}
    assert len(groups) == len({stage.kind for stage in one.stages.values()})
    trained = {stage.cost_group for plan in (one, other) for stage in plan.stages.values() if stage.kind == "train"}
    assert len(trained) == 2, "epochs cost time"
    for stage in one.stages.values():
        assert stage.cost_group == cost_group_of(stage.kind, stage.spec)
        assert stage.cost_group.stage == stage.kind

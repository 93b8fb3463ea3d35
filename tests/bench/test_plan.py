"""A plan is a graph: stages with those that read them, and nothing that no trial needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.api import registry
from bench.graph.plan import Plan
from tests.bench.conftest import count, plan_of


def test_children_are_the_inverse_of_parents(tiny: Callable[..., Plan]) -> None:
    plan = tiny("defenses=none,strip")
    edges = {(parent, key) for key, stage in plan.stages.items() for parent in stage.parents.values()}
    assert {(key, child) for key, children in plan.children.items() for child in children} == edges
    assert all(len(children) == len(set(children)) for children in plan.children.values())


def test_every_stage_is_one_that_a_trial_needs(tiny: Callable[..., Plan]) -> None:
    plan = tiny("defenses=none,strip")
    assert plan.ancestors() == set(plan.stages)
    only = Plan(plan.stages, [trial for trial in plan.trials if trial.trial.attack.name == "none"])
    kinds = {stage.kind for key, stage in plan.stages.items() if key in only.ancestors()}
    assert "train" in kinds
    assert "implant" not in kinds


NEEDY = '''"""Wants pictures that nobody has."""
from bench.api.attack import *
@attack
class Needy(PoisoningAttack):
    def threat(self): return Threat.TRAIN_SET
    def requires(self, setting): return (DataSpec("cifar10"),)
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, view, trigger, rng): raise NotImplementedError
'''


def test_stages_of_a_trial_that_turns_out_to_lack_data_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text(NEEDY)
    registry.load_plugin(tmp_path / "needy.py")
    both = plan_of(tmp_path / "s.toml", '[axes]\nattacks = ["needy", "none"]\n')
    alone = plan_of(tmp_path / "s.toml", '[axes]\nattacks = ["needy"]\n')
    assert [(planned.key is None, "cifar10" in planned.skipped) for planned in both.trials] == [
        (True, True),
        (False, False),
    ]
    assert count(both)["train"] == 1
    assert alone.stages == {}

"""Equal work is one stage, and each stage reads what it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api import registry
from bench.api.errors import UserError
from bench.config import suite as suites
from bench.engine.scheduler import Frontier
from bench.engine.store import Store
from bench.graph import planner
from bench.graph.plan import Plan
from tests.bench.conftest import count, finish, kinds, plan_of

Tiny = Callable[..., Plan]


def test_trials_share_every_stage_they_can(tiny: Tiny) -> None:
    plan = tiny("targets=0,1", "defenses=none,fine_pruning,strip")
    assert len(plan.trials) == 12
    stages = count(plan)
    assert stages["load"] == stages["split"] == stages["train"] == 1
    assert stages["implant"] == stages["make_trigger"] == 2  # badnets at two targets; `none` adds no stage
    # the clean model's defenses serve both targets: 2 of the clean model, 2 of each backdoored one
    assert stages["defend"] == 6
    # an input detector changes no codes: clean, its repair, and two backdoored models with theirs
    assert stages["encode"] == 6


def test_queries_are_purified_once_for_all_targets_and_the_database_never(tiny: Tiny) -> None:
    plan = tiny("targets=0,1", "defenses=none,median")
    stages = count(plan)
    assert "defend" not in stages
    assert stages["encode"] == 3  # as without the purification: the clean model and two backdoored ones
    assert stages["purify_benign"] == 3
    # the clean model at two targets, without trigger and with each trigger, and two backdoored models
    assert stages["purify_triggered"] == 6
    assert count(tiny("targets=0,1", "defenses=median"))["encode_triggered"] == stages["encode_triggered"]
    seeds = {stage.spec["seed"] for stage in plan.stages.values() if stage.kind.startswith("purify")}
    assert seeds == {0}


def test_several_suites_are_one_graph(tmp_path: Path) -> None:
    for name, attacks in (("one", '"none", "badnets"'), ("two", '"badnets", "blend"')):
        (tmp_path / f"{name}.toml").write_text(f"[axes]\nattacks = [{attacks}]\n")
    loaded = [suites.load(str(tmp_path / f"{name}.toml")) for name in ("one", "two")]
    both = planner.plan(loaded, data=None, device="cpu")
    assert [trial.trial.attack.label for trial in both.trials] == ["none", "badnets", "blend"]
    assert count(both)["train"] == 1
    assert count(both)["implant"] == 2


def test_stages_come_after_their_parents(tiny: Tiny) -> None:
    plan = tiny("defenses=none,fine_pruning,strip")
    seen: set[str] = set()
    for key, stage in plan.stages.items():
        assert set(stage.parents.values()) <= seen
        seen.add(key)


def test_adding_a_defense_trains_no_model_and_implants_nothing(tiny: Tiny, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    finish(tiny(), store)
    wider = tiny("defenses=none,fine_pruning,strip")
    needed = Frontier(wider, store, ()).needed
    added = {"defend", "encode", "encode_triggered", "score_benign", "score_triggered", "measure"}
    assert kinds(needed, wider) == added
    assert not Frontier(tiny(), store, ()).needed


def test_one_model_for_all_seeds_is_measured_with_the_first(tmp_path: Path) -> None:
    """Counting it once for each seed would make an interval narrow that rests on one model."""
    (tmp_path / "fixed.py").write_text(WISHFUL.replace("    def threat", "    seed_dependent = False\n    def threat"))
    registry.load_plugin(tmp_path / "fixed.py")
    made = plan_of(tmp_path / "s.toml", '[axes]\nattacks = ["none", "fixed"]\nseeds = [4, 5]\n')
    found = {(planned.trial.attack.name, planned.trial.seed): planned.key is not None for planned in made.trials}
    assert found == {("none", 4): True, ("none", 5): True, ("fixed", 4): True, ("fixed", 5): False}
    assert "--only seed=4" in next(planned.skipped for planned in made.trials if planned.key is None)


# Surrogates

WISHFUL = '''"""Wants surrogates and foreign data."""
from bench.api.attack import *
@attack
class Wishful(PoisoningAttack):
    def threat(self): return Threat.TRAIN_SET
    def requires(self, setting):
        return (ModelSpec(), ModelSpec(bits=8), DataSpec("shapes"))
    def apply_trigger(self, images, target, trigger): return images
    def poison(self, view, trigger, rng): raise NotImplementedError
'''


@pytest.fixture
def wishful(tmp_path: Path) -> Callable[..., Plan]:
    """A plan of an attack that asks for two surrogates and a data set."""
    (tmp_path / "wishful.py").write_text(WISHFUL)
    registry.load_plugin(tmp_path / "wishful.py")
    text = '[axes]\ndatasets = ["digits"]\nattacks = ["wishful"]\nseeds = SEEDS\nsurrogate = [WHICH]\n'

    def make(which: str, seeds: str = "[0]") -> Plan:
        return plan_of(tmp_path / "s.toml", text.replace("SEEDS", seeds).replace("WHICH", which))

    return make


def surrogates(made: Plan) -> list[tuple[int, dict, dict]]:
    """Of each trigger: the trial's seed, and the specs of both surrogates."""
    triggers = [stage for stage in made.stages.values() if stage.kind == "make_trigger"]
    for stage in triggers:
        assert made.stages[stage.parents["proxies.0.load"]].spec["dataset"]["name"] == "shapes"
        assert "clean" not in stage.parents, "no Threat.MODEL, no clean model"
    return [
        (stage.spec["seed"], *(made.stages[stage.parents[f"surrogates.{i}"]].spec for i in (0, 1)))
        for stage in triggers
    ]


@pytest.mark.parametrize(
    ("seeds", "which", "expected"),
    [("[0]", "other_seed", {0: 1}), ("[0, 1, 2]", "other_seed", {0: 1, 1: 2, 2: 0}), ("[4]", "same", {4: 4})],
)
def test_surrogates_come_from_another_repetition(wishful, seeds: str, which: str, expected: dict[int, int]) -> None:
    made = wishful(f'"{which}"', seeds)
    found = surrogates(made)
    assert {seed: first["seed"] for seed, first, _ in found} == expected
    assert all(first["seed"] == second["seed"] and second["bits"] == 8 for _, first, second in found)


def test_three_repetitions_lend_each_other_their_clean_models(wishful) -> None:
    made = wishful('"other_seed"', "[0, 1, 2]")
    assert Counter(stage.spec["bits"] for stage in made.stages.values() if stage.kind == "train") == {32: 3, 8: 3}


@pytest.mark.parametrize(
    ("axis", "part", "value"), [("backbone=resnet18", "backbone", "resnet18"), ("method=dpsh", "method", "dpsh")]
)
def test_the_surrogate_axis_may_name_another_backbone_or_method(wishful, axis: str, part: str, value: str) -> None:
    plan = wishful(f'"other_seed", "{axis}", "bits=16"')
    found = surrogates(plan)
    assert [first[part]["name"] == value for _, first, _ in found] == [False, True, False]
    assert [(first["bits"], second["bits"]) for _, first, second in found] == [(32, 8), (32, 8), (16, 8)]
    assert [str(trial.trial.surrogate) for trial in plan.trials] == ["other_seed", axis, "bits=16"]


@pytest.mark.parametrize(("which", "named"), [("someone", "surrogate"), ("backbone=resnet8", "resnet18")])
def test_a_surrogate_that_nobody_offers_is_refused(wishful, which: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        wishful(f'"{which}"')

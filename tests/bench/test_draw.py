"""Which trials of a published run are drawn to run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.api.kinds import DefenseKind
from bench.config.trial import PlannedTrial, Spec
from bench.engine.collection import opened
from bench.engine.draw import NAMES_A_FILE, Draw, draw


@pytest.fixture(scope="module")
def published() -> list[PlannedTrial]:
    return next(list(run.trials) for run in opened(Path("reference")).runs() if run.suites == ["quick"])


def drawn(trials: list[PlannedTrial], count: int, seed: int = 0) -> Draw:
    return draw(trials, count, seed=seed, data=None, device="cpu")


def with_component(one: PlannedTrial, axis: str, spec: Spec) -> PlannedTrial:
    return replace(one, trial=replace(one.trial, **{axis: spec}))


def test_a_draw_can_be_repeated_and_does_not_depend_on_the_order(published):
    first = drawn(published, 3, seed=5)
    assert len(first.trials) == 3
    assert drawn(published[::-1], 3, seed=5).trials == first.trials
    assert {tuple(one.key for one in drawn(published, 3, seed=seed).trials) for seed in range(5)} != {
        tuple(one.key for one in first.trials)
    }


def test_trials_with_an_attack_come_first(published):
    attacked = [one for one in published if one.trial.attack.name != "none"]
    clean = [one for one in published if one.trial.attack.name == "none"]
    assert all(one.trial.attack.name != "none" for one in drawn(published, 5).trials)
    assert len(drawn([*clean[:1], *attacked[:1]], 5).trials) == 2


def test_the_plan_has_the_drawn_trials_and_can_run(published):
    found = drawn(published, 2)
    assert [one.trial for one in found.plan.trials] == [one.trial for one in found.trials]
    assert all(one.key in found.plan.stages for one in found.plan.trials)


@pytest.mark.parametrize(
    ("axis", "spec"),
    [
        ("attack", Spec("checkpoint", {"path": "/etc/passwd"})),
        ("attack", Spec("checkpoint", {"path": "model.pth"})),
        ("backbone", Spec("vgg11", {"weights": "../secret.pth"})),
        ("dataset", Spec("lists", {"path": "lists"})),
        ("dataset", Spec("folder", {"path": "pictures"})),
    ],
)
def test_no_file_of_a_strangers_choice_is_read(published, axis, spec):
    found = drawn([with_component(published[-1], axis, spec)], 1)
    assert found.trials == []
    assert dict(found.reasons) == {NAMES_A_FILE: 1}


@pytest.mark.parametrize(
    "spec", [Spec("of_a_plugin"), Spec("badnets", {"of_a_later_version": 1}), Spec("badnets", {"poison_rate": 7.0})]
)
def test_what_this_installation_does_not_have_is_left_out_with_the_reason(published, spec):
    sound = published[-1]
    found = drawn([with_component(sound, "attack", spec), sound], 2)
    assert found.trials == [sound]
    assert sum(found.reasons.values()) == 1


def test_the_author_of_a_run_does_not_choose_what_is_drawn_or_how_it_is_judged(published):
    """What a run says of access and kind of defense changes neither the draw nor the trials that come back."""
    forged = [replace(one, access=None, defense_kind=DefenseKind.REPAIR) for one in published]
    for seed in range(3):
        assert drawn(forged, 2, seed=seed).trials == drawn(published, 2, seed=seed).trials


@pytest.mark.parametrize("change", [{"target": ("no class",)}, {"attack": Spec("badhash", {"aux_method": "~nobody"})}])
def test_nonsense_of_a_stranger_is_left_out(published, change):
    sound = next(one for one in published if one.trial.attack.name == "badnets")
    found = drawn([replace(sound, trial=replace(sound.trial, **change))], 1)
    assert found.trials == []
    assert sum(found.reasons.values()) == 1

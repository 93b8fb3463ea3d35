"""Each stage reads what the trial means: the repaired model, the clean one's own detector, the same trigger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.artifacts.inputs import (
    DefendInputs,
    EncodeInputs,
    EncodeTriggeredInputs,
    MeasureInputs,
    PurifyBenignInputs,
    PurifyTriggeredInputs,
    ScoreBenignInputs,
    ScoreTriggeredInputs,
)
from bench.graph.plan import Plan
from tests.bench.conftest import key_of

Tiny = Callable[..., Plan]


def trial_of(plan: Plan) -> MeasureInputs:
    """What the plan's only trial is measured by."""
    (planned,) = plan.trials
    return MeasureInputs.of(plan.stages[planned.key].parents)


def models(plan: Plan, inputs: MeasureInputs) -> tuple[str, str]:
    """Kinds of the stages that left the model of the trial, and of its control; each has one for all its codes."""
    found = []
    for system in (inputs.measured, inputs.control):
        benign = EncodeInputs.of(plan.stages[system.benign.key].parents).model
        triggered = EncodeTriggeredInputs.of(plan.stages[system.triggered.key].parents).model
        assert benign == triggered
        found.append(plan.stages[benign.key].kind)
    return found[0], found[1]


@pytest.mark.parametrize(
    ("attack", "defense", "model"),
    [
        ("none", "none", "train"),
        ("badnets", "none", "implant"),
        ("badnets", "fine_pruning", "defend"),  # a repair
        ("badnets", "spectral_signatures", "defend"),  # a data filter
        ("badnets", "strip", "implant"),  # an input detector changes no code
        ("badnets", "neural_cleanse", "implant"),  # nor does a model detector
        ("badnets", "median", "implant"),  # a purification changes queries
    ],
)
def test_a_trial_is_measured_with_the_model_that_it_ends_with(
    tiny: Tiny, attack: str, defense: str, model: str
) -> None:
    plan = tiny(f"attacks={attack}", f"defenses={defense}")
    inputs = trial_of(plan)
    assert models(plan, inputs) == (model, "train")
    assert (inputs.implant is None) == (attack == "none")
    assert (inputs.defense is None) == (defense in {"none", "median"})


@pytest.mark.parametrize(
    ("attack", "defense", "before"),
    [
        ("badnets", "fine_pruning", "implant"),
        ("badnets", "spectral_signatures", "implant"),
        ("none", "fine_pruning", "train"),
        ("badnets", "none", ""),
        ("badnets", "strip", ""),
        ("badnets", "neural_cleanse", ""),
    ],
)
def test_the_stored_database_is_that_of_the_model_before_the_repair(
    tiny: Tiny, attack: str, defense: str, before: str
) -> None:
    plan = tiny(f"attacks={attack}", f"defenses={defense}")
    inputs = trial_of(plan)
    assert (inputs.stored is not None) == bool(before)
    if inputs.stored is not None:
        encoded = EncodeInputs.of(plan.stages[inputs.stored.key].parents).model
        defended = DefendInputs.of(plan.stages[inputs.defense.key].parents).model
        assert encoded == defended
        assert plan.stages[encoded.key].kind == before


def test_both_models_get_the_same_trigger_and_each_an_input_detector_of_its_own(tiny: Tiny) -> None:
    plan = tiny("attacks=badnets", "defenses=strip")
    inputs = trial_of(plan)
    trigger = key_of(plan, "make_trigger")
    for system, model in ((inputs.measured, "implant"), (inputs.control, "train")):
        benign = ScoreBenignInputs.of(plan.stages[system.benign_scores.key].parents)
        triggered = ScoreTriggeredInputs.of(plan.stages[system.triggered_scores.key].parents)
        assert benign.detector == triggered.detector
        fitted = DefendInputs.of(plan.stages[benign.detector.key].parents)
        assert {plan.stages[one.key].kind for one in (benign.model, triggered.model, fitted.model)} == {model}
        codes = EncodeTriggeredInputs.of(plan.stages[system.triggered.key].parents)
        assert triggered.trigger.key == codes.trigger.key == trigger


@pytest.mark.parametrize("attack", ["none", "badnets"])
def test_both_models_encode_purified_queries_with_the_same_trigger(tiny: Tiny, attack: str) -> None:
    plan = tiny(f"attacks={attack}", "defenses=median")
    inputs = trial_of(plan)
    trigger = key_of(plan, "make_trigger") if attack != "none" else None
    for system, model in ((inputs.measured, "implant" if trigger else "train"), (inputs.control, "train")):
        assert system.purified_benign is not None
        assert system.purified_triggered is not None
        benign = PurifyBenignInputs.of(plan.stages[system.purified_benign.key].parents)
        triggered = PurifyTriggeredInputs.of(plan.stages[system.purified_triggered.key].parents)
        assert {plan.stages[one.key].kind for one in (benign.model, triggered.model)} == {model}
        assert (triggered.trigger.key if triggered.trigger else None) == trigger
        assert triggered.benign == (None if trigger else system.purified_benign)


@pytest.mark.parametrize(
    ("attack", "defense", "poison", "codes"),
    [("badnets", "strip", False, True), ("badnets", "spectral_signatures", True, False),
     ("none", "spectral_signatures", False, False), ("badnets", "fine_pruning", False, False)],
)  # fmt: skip
def test_a_defense_gets_the_training_set_and_the_database_where_it_needs_them(
    tiny: Tiny, attack: str, defense: str, poison: bool, codes: bool
) -> None:
    plan = tiny(f"attacks={attack}", f"defenses={defense}")
    inputs = DefendInputs.of(plan.stages[trial_of(plan).defense.key].parents)
    assert (inputs.poison is not None, inputs.codes is not None) == (poison, codes)

"""Draws trials of a published run that can run again here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from bench.api.errors import UserError
from bench.api.own_files import names_a_file
from bench.api.registry import KIND_OF_AXIS
from bench.config.schema import Resources
from bench.config.trial import PlannedTrial, Trial
from bench.graph import planner
from bench.graph.plan import Plan
from bench.graph.settings import instance

NONE = "none"
TIMEOUT = 1800.0  # seconds of a stage: a stranger may ask for any number of epochs
NAMES_A_FILE = "the trial names a file; a file of a stranger's choice is not read"


@dataclass(frozen=True)
class Draw:
    """Trials of a run, and the plan to run them again. reasons: why others that were drawn cannot run, with counts."""

    trials: Sequence[PlannedTrial]
    plan: Plan
    reasons: Counter[str]


@dataclass(frozen=True)
class _Drawn:
    """The source of trials for the planner."""

    chosen: Sequence[Trial]
    resources: Resources = field(default_factory=lambda: Resources(timeout=TIMEOUT))

    def trials(self, data: Path | None) -> Iterator[Trial]:
        del data
        return iter(self.chosen)


def draw(trials: Collection[PlannedTrial], count: int, *, seed: int, data: Path | None, device: str) -> Draw:
    """Draw trials with a known number generator; those with an attack come first.

    trials: with results. count: at most so many. seed: of the draw. data: the folder of data sets. Fewer trials, or
    none, come back if the others cannot run here. What the run says of components is replaced by what they say of
    themselves, so that its author cannot choose.
    """
    order = sorted(trials, key=lambda one: one.key or "")
    Random(seed).shuffle(order)
    order.sort(key=lambda one: one.trial.attack.name == NONE)
    found: list[PlannedTrial] = []
    reasons: Counter[str] = Counter()
    for one in order:
        if len(found) == count:
            break
        planned, reason = _planned(one.trial, data, device)
        if planned is None:
            reasons[reason] += 1
        else:
            found.append(replace(planned, key=one.key))
    return Draw(found, planner.plan([_Drawn([one.trial for one in found])], data=data, device=device), reasons)


def _planned(trial: Trial, data: Path | None, device: str) -> tuple[PlannedTrial | None, str]:
    """The trial of a stranger as it is planned here, or why it cannot or must not run here."""
    try:
        for axis, spec in trial.components.items():
            if names_a_file(instance(KIND_OF_AXIS[axis], spec), spec.params):
                return None, NAMES_A_FILE
        (planned,) = planner.plan([_Drawn([trial])], data=data, device=device).trials
    except UserError as error:  # a component or parameter that this installation does not have
        return None, error.problem
    return (None, planned.skipped) if planned.key is None else (planned, "")

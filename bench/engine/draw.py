"""Draws trials of a published run that can run again here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.api.errors import UserError
from bench.api.kinds import Access
from bench.api.own_files import names_a_file
from bench.api.registry import KIND_OF_AXIS
from bench.config.schema import Resources
from bench.config.trial import PlannedTrial, Trial
from bench.graph import planner
from bench.graph.plan import Plan
from bench.graph.settings import instance

NAMES_A_FILE = "the trial names a file; a file of a stranger's choice is not read"


@dataclass(frozen=True)
class Draw:
    """Trials of a run, and the plan to run them again. reasons: why others that were drawn cannot run, with counts."""

    trials: Sequence[PlannedTrial]
    plan: Plan
    reasons: Counter[str]


@dataclass(frozen=True)
class _Drawn:
    """The source of trials for the planner, with the default limits."""

    chosen: Sequence[Trial]
    resources: Resources = field(default_factory=Resources)

    def trials(self, data: Path | None) -> Iterator[Trial]:
        del data
        return iter(self.chosen)


def draw(trials: Collection[PlannedTrial], count: int, *, seed: int, data: Path | None, device: str) -> Draw:
    """Draw trials with a known number generator; those with an attack come first.

    trials: with results. count: at most so many. seed: of the draw. data: the folder of data sets. Fewer trials, or
    none, come back if the others cannot run here.
    """
    order = sorted(trials, key=lambda one: one.key or "")
    Random(seed).shuffle(order)
    order.sort(key=lambda one: one.access in {None, Access.NONE})
    found: list[PlannedTrial] = []
    reasons: Counter[str] = Counter()
    for one in order:
        if len(found) == count:
            break
        if reason := _obstacle(one.trial, data, device):
            reasons[reason] += 1
        else:
            found.append(one)
    return Draw(found, planner.plan([_Drawn([one.trial for one in found])], data=data, device=device), reasons)


def _obstacle(trial: Trial, data: Path | None, device: str) -> str:
    """Why a trial of a stranger cannot or must not run here; "" if it can."""
    try:
        for axis, spec in trial.components.items():
            if names_a_file(instance(KIND_OF_AXIS[axis], spec), spec.params):
                return NAMES_A_FILE
        return planner.plan([_Drawn([trial])], data=data, device=device).trials[0].skipped
    except UserError as error:  # a component or parameter that this installation does not have
        return error.problem

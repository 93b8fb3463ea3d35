"""A plan: the trials of a run and the stages that they need, as a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.config.trial import PlannedTrial
from bench.graph.labels import CostGroup


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    kind: the name of the stage's module in bench/stages. spec: the stage's parameters. parents: the keys of the stages
    whose artifacts this stage reads, by role, a field's name in bench.artifacts.inputs. modules, code: the modules that
    compute the result, and their fingerprint. label: the stage's name in progress displays and errors. cost_group:
    equal for stages that take about the same time and space. threads, num_gpus: the resources that the stage occupies.
    timeout: seconds.
    """

    kind: str
    key: str
    spec: Mapping[str, Any]
    parents: Mapping[str, str]
    modules: tuple[str, ...]
    code: str
    label: str
    cost_group: CostGroup
    threads: int
    num_gpus: float
    timeout: float


@dataclass
class Plan:
    """stages: by key, each stage after its parents. trials: in the order of the suites."""

    stages: dict[str, Stage] = field(default_factory=dict)
    trials: list[PlannedTrial] = field(default_factory=list)

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """The keys of the stages that read a stage, by its key."""
        found: dict[str, list[str]] = {key: [] for key in self.stages}
        for stage in self.stages.values():
            for parent in set(stage.parents.values()):
                found[parent].append(stage.key)
        return found

    def ancestors(self) -> set[str]:
        """The keys of all stages that some trial needs."""
        found: set[str] = set()
        left = [trial.key for trial in self.trials if trial.key is not None]
        while left:
            if (key := left.pop()) not in found:
                found.add(key)
                left += self.stages[key].parents.values()
        return found

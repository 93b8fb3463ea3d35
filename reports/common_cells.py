"""The (target, seed) cells that all rows of a board share, and means and intervals over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bench.engine.record import Status
from reports import statistics
from reports.selection import of_status, with_result
from reports.statistics import Cells, Interval

Place = tuple[str, int]  # target, seed


@dataclass(frozen=True)
class Group:
    """The trials of one row of a board.

    planned: their cells. done: the trials with a result. positions: the position in `done` of each cell.
    collapsed: trials whose training failed, by key, with the reason.
    """

    planned: frozenset[Place]
    done: pd.DataFrame
    positions: Mapping[Place, int]
    collapsed: Mapping[str, str]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Group:
        """The group of these trials, rows of a frame of trials."""
        planned = frozenset(zip(rows["target"], rows["seed"], strict=True))
        done = with_result(rows)
        places = list(zip(done["target"], done["seed"], strict=True))
        failed = of_status(rows, Status.COLLAPSED)
        reasons = dict(zip(failed["key"], failed["reason"], strict=True))
        return cls(planned, done, {place: i for i, place in reversed(list(enumerate(places)))}, reasons)

    @property
    def places(self) -> frozenset[Place]:
        """The cells with a result."""
        return frozenset(self.positions)

    @property
    def keys(self) -> dict[Place, str]:
        """The key of the trial of each cell."""
        return {place: str(self.done["key"].iloc[i]) for place, i in self.positions.items()}

    def values(self, metric: str, places: Sequence[Place]) -> Float64[np.ndarray, " n"]:
        """The metric in each of these cells; KeyError for a cell without a result."""
        column = self.done[metric].to_numpy(dtype=np.float64)
        return column[[self.positions[place] for place in places]]

    @property
    def coverage(self) -> str:
        """Cells with a result and planned cells, as "5/6"."""
        return f"{len(self.places)}/{len(self.planned)}"


@dataclass(frozen=True)
class CommonCells:
    """The (target, seed) cells that every counted row has.

    A row counts if it has at least half as many results as the fullest row. fixed_targets: whether the targets are all
    classes of the data set.
    """

    places: tuple[Place, ...]
    counted: frozenset[Any]
    fixed_targets: bool

    @classmethod
    def of(cls, groups: Mapping[Any, Group]) -> CommonCells:
        """The common cells of rows by name."""
        most = max((len(group.places) for group in groups.values()), default=0)
        counted = frozenset(name for name, group in groups.items() if group.places and 2 * len(group.places) >= most)
        places = frozenset.intersection(*(groups[name].places for name in counted)) if counted else frozenset()
        shared = sorted(places)
        targets = {target for target, _ in shared}
        classes = {number for name in counted for number in groups[name].done["classes"].dropna()}
        single = all((groups[name].values("target_labels", shared) == 1).all() for name in counted)
        return cls(
            places=tuple(shared),
            counted=counted if places else frozenset(),
            fixed_targets=len(targets) > 1 and classes == {len(targets)} and single,
        )

    @property
    def targets(self) -> list[str]:
        """The targets of the cells; short names first, so that numbers are in order."""
        return sorted({target for target, _ in self.places}, key=lambda name: (len(name), name))

    @property
    def seeds(self) -> list[int]:
        """The seeds of the cells, in order."""
        return sorted({seed for _, seed in self.places})

    @property
    def crossed(self) -> bool:
        """Whether every target has every seed."""
        return len(self.places) == len(self.targets) * len(self.seeds)

    @property
    def inference(self) -> bool:
        """Whether the cells allow intervals and ranks: fully crossed, with at least two seeds and two targets."""
        return self.crossed and len(self.seeds) > 1 and len(self.targets) > 1

    def mean(self, group: Group, metric: str) -> float:
        """The mean over the shared cells; NaN if the metric has no value in one of them."""
        return float(group.values(metric, self.places).mean()) if self.places else math.nan

    def matrix(self, group: Group, metric: str) -> Cells:
        """The metric per target (row) and seed (column)."""
        values = group.values(metric, [(target, seed) for target in self.targets for seed in self.seeds])
        return values.reshape(len(self.targets), len(self.seeds))

    def interval(self, group: Group, metric: str) -> Interval | None:
        """The 95 % interval of the mean; None if the cells allow none."""
        if not self.inference:
            return None
        return statistics.crossed_interval(self.matrix(group, metric), fixed_targets=self.fixed_targets)

    def sentence(self, *, intervals: bool = True, scope: str = "of this setting and no other") -> str:
        """A sentence with n and the population of the intervals, or with the reason why there are none."""
        if not self.places:
            return "The rows share no (target, seed) cell: no averages."
        targets, seeds = self.targets, self.seeds
        words = (
            f"n = {len(self.places)}: {_count(targets, 'target')} x {_count(seeds, 'seed')}"
            f"{'' if self.crossed else ', not fully crossed'}."
        )
        if not intervals:
            return f"{words} Means over these cells."
        if not self.inference:
            few = "cell" if len(self.places) == 1 else "seed" if len(seeds) == 1 else "target"
            why = f"With one {few}," if self.crossed else "Some combinations of target and seed are missing:"
            return f"{words} {why} no interval and no rank can be computed."
        over = (
            "for these targets, which are all classes, over new seeds"
            if self.fixed_targets
            else "over new targets and new seeds, crossed,"
        )
        return f"{words} Intervals (95 %): {over} {scope}."


def _count(values: Sequence[Any], what: str) -> str:
    return f"{len(values)} {what}{'s' * (len(values) > 1)} ({', '.join(map(str, values))})"

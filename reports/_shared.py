"""Which cells the rows of a board have in common, and means and intervals over exactly these."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports import statistics
from reports.statistics import Cells, Interval

Place = tuple[str, int]  # target, seed


@dataclass(frozen=True)
class Group:
    """The cells of one row: everything planned, and what has a result, by (target, seed)."""

    planned: frozenset[Place]
    done: pd.DataFrame

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Group:
        done = rows[rows["status"] == "ok"] if "status" in rows else rows
        index = pd.MultiIndex.from_arrays([done["target"], done["seed"]])
        kept = done.set_axis(index, axis=0)
        return cls(frozenset(zip(rows["target"], rows["seed"], strict=True)), kept[~index.duplicated()])

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(self.done.index)

    @property
    def coverage(self) -> str:
        return f"{len(self.places)}/{len(self.planned)}"


@dataclass(frozen=True)
class Shared:
    """The (target, seed) cells that every counted row has. Rows with far fewer results than the fullest do not count."""

    places: tuple[Place, ...]
    counted: frozenset[Hashable]
    fixed_targets: bool  # they are all there are in the data set

    @classmethod
    def of(cls, groups: Mapping[Hashable, Group]) -> Shared:
        most = max((len(group.places) for group in groups.values()), default=0)
        counted = frozenset(name for name, group in groups.items() if group.places and 2 * len(group.places) >= most)
        places = frozenset.intersection(*(groups[name].places for name in counted)) if counted else frozenset()
        targets = {target for target, _ in places}
        classes = {number for name in counted for number in groups[name].done["classes"].dropna()}
        return cls(
            places=tuple(sorted(places)),
            counted=counted if places else frozenset(),
            fixed_targets=len(targets) > 1 and classes == {len(targets)} and not any("+" in name for name in targets),
        )

    @property
    def targets(self) -> list[str]:
        return sorted({target for target, _ in self.places}, key=lambda name: (len(name), name))

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.places})

    @property
    def crossed(self) -> bool:
        return len(self.places) == len(self.targets) * len(self.seeds)

    @property
    def inference(self) -> bool:
        """Whether intervals and ranks are to be had: full cross, at least two seeds and two targets."""
        return self.crossed and len(self.seeds) > 1 and len(self.targets) > 1

    def mean(self, group: Group, metric: str) -> float:
        """Over the shared cells; NaN if one of them has no value, rather than a mean over fewer."""
        values = group.done.loc[list(self.places), metric].to_numpy(dtype=np.float64)
        return float(values.mean()) if len(values) else float("nan")

    def matrix(self, group: Group, metric: str) -> Cells:
        values = group.done.loc[[(t, s) for t in self.targets for s in self.seeds], metric]
        return values.to_numpy(dtype=np.float64).reshape(len(self.targets), len(self.seeds))

    def interval(self, group: Group, metric: str) -> Interval | None:
        if not self.inference:
            return None
        return statistics.crossed_interval(self.matrix(group, metric), fixed_targets=self.fixed_targets)

    def sentence(self) -> str:
        """n, and what intervals stand for or why there are none."""
        targets, seeds = self.targets, self.seeds
        if not self.places:
            return "No (target, seed) cell that all rows share: no averages."
        n = len(self.places)
        words = (
            f"n = {n}: {len(targets)} target{'s' * (len(targets) > 1)} ({', '.join(targets)})"
            f" x {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"
        )
        if not self.crossed:
            return f"{words}, not fully crossed: no interval, no rank."
        if n == 1:
            return f"{words}. n = 1: no interval, no rank."
        if not self.inference:
            return f"{words}. One {'seed' if len(seeds) == 1 else 'target'}: no interval, no rank."
        if self.fixed_targets:
            return f"{words}. Intervals (95 %): for these targets, which are all classes, over new seeds of this setting."
        return f"{words}. Intervals (95 %): over new targets and new seeds, crossed, of this setting and no other."

"""Frontiers of repairs: what a repair reaches at each bound on the mAP that it may cost (METHODOLOGY.md#frontier)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.api.kinds import CODE_CHANGING
from reports import sweeps
from reports.basis import Basis
from reports.common_cells import Group
from reports.context import BoardContext, contexts
from reports.selection import NONE, none_first, undefended

BOUND = "max_drop"  # the parameter of repairs that bounds the mAP that they may cost


@dataclass(frozen=True)
class Frontier:
    """The frontiers of all repairs of a setting.

    basis: a row for each (attack, repair, bound), with bound 0 and repair NONE for undefended trials. repairs: their
    labels without the bound. bounds: all bounds, from small to large.
    """

    basis: Basis
    repairs: tuple[str, ...]
    bounds: tuple[float, ...]

    @property
    def attacks(self) -> list[str]:
        return sorted({attack for attack, _, _ in self.basis.rows}, key=lambda name: (none_first(name), name))

    def mean(self, attack: str, metric: str) -> float | None:
        """The mean of a metric that no repair changes, such as a control; None if no row of the attack is counted."""
        shared = self.basis.cells
        counted = (row for key, row in self.basis.rows.items() if key[0] == attack and key in shared.counted)
        return next((shared.mean(row, metric) for row in counted), None)

    def values(self, attack: str, repair: str, metric: str) -> list[float | None]:
        """The mean of the metric without defense, and then at each bound; None where the row is not counted."""
        keys = [(attack, NONE, 0.0), *((attack, repair, bound) for bound in self.bounds)]
        shared = self.basis.cells
        return [shared.mean(self.basis.rows[key], metric) if key in shared.counted else None for key in keys]


def frontiers(trials: pd.DataFrame, mixed: bool) -> Iterator[Frontier]:
    """The frontier of each setting in which a repair has at least three bounds."""
    for context in contexts(trials, mixed):
        found = {label: rows for label, parameter, rows in sweeps.defenses(context.trials) if parameter == BOUND}
        if found:
            made = dict(_rows(context, found))
            bounds = sorted({bound for _, repair, bound in made if repair != NONE})
            yield Frontier(Basis.of(context, made), tuple(sorted(found)), tuple(bounds))


def _rows(context: BoardContext, found: dict[str, pd.DataFrame]) -> Iterator[tuple[tuple[str, str, float], Group]]:
    """A row has all its planned trials, also those without a result. A bound without any result has no row."""
    attacks: set[str] = set()
    planned = context.part(CODE_CHANGING)
    for label, curve in found.items():
        names = curve.drop_duplicates("defense").set_index("defense")["x"]
        mine = planned[planned["defense"].isin(names.index)]
        mine = mine.assign(x=mine["defense"].map(names))
        for (attack, bound), group in context.grouped(mine, ["attack", "x"]).items():
            attacks.add(attack)
            yield (attack, label, float(bound)), group
    for attack, group in context.grouped(undefended(context.trials), ["attack"]).items():
        if attack in attacks:
            yield (attack, NONE, 0.0), group


def area(bounds: Sequence[float], values: Sequence[float | None]) -> float | None:
    """The mean of the piecewise linear curve through (0, first value), (first bound, second value), ...

    None if a value is missing. ValueError: there is not one value more than bounds.
    """
    if len(values) != len(bounds) + 1:
        raise ValueError(f"{len(values)} values for {len(bounds)} bounds: expected one more, the value without defense")
    from sklearn.metrics import auc

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return float(auc([0.0, *bounds], known) / bounds[-1])

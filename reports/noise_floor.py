"""How far numbers move if only the machine, the seed or the target changes (METHODOLOGY.md#noise-floor)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from reports.selection import NONE

MACHINE, SEED, TARGET = "machine", "seed", "target"  # the sources of differences
CHANCE = (MACHINE, SEED)  # the sources that do not change the task
FILE = "assets/noise_floor.json"  # written by tests/experiments/noise_floor.py


@dataclass(frozen=True)
class Floor:
    """Absolute differences of a metric between two trials of one kind that differ in `source` alone.

    kind: one of `kinds_of`. source: machine, seed or target. pairs: number of differences. median, p95, largest: of the
    differences, in the metric's unit.
    """

    metric: str
    kind: str
    source: str
    pairs: int
    median: float
    p95: float
    largest: float


def kinds_of(attack: str, defense_kind: str) -> tuple[str, ...]:
    """The kinds of a trial, the narrowest first: for example "badnets, repair" and "attacked, repair".

    attack: its name, without parameters.
    """
    return tuple(f"{who}, {defense_kind}" for who in (["clean"] if attack == NONE else [attack, "attacked"]))


def floor_of(metric: str, attack: str, defense_kind: str, source: str = MACHINE) -> Floor | None:
    """The measured floor of the narrowest kind of such a trial; None if there is none."""
    found = (shipped().get((metric, kind, source)) for kind in kinds_of(attack, defense_kind))
    return next((floor for floor in found if floor is not None), None)


@cache
def shipped() -> Mapping[tuple[str, str, str], Floor]:
    """The measured floors by metric, kind and source."""
    text = resources.files("reports").joinpath(FILE).read_text(encoding="utf-8")
    found = [Floor(**one) for one in json.loads(text)["floors"]]
    return {(one.metric, one.kind, one.source): one for one in found}

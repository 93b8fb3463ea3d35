"""Trials that ran again beside their published values: whether this installation computes what others compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from bench.api.kinds import DefenseKind
from bench.metrics import METRICS
from reports import noise_floor
from reports.board import Board, Column
from reports.compare import CLOSE, Pair, pairs
from reports.frame import Results
from reports.selection import NONE, with_result, without_result

SUITE = "quick"
ATTACKS, DEFENSES, TARGET = (NONE, "badnets", "blend"), (NONE, "fine_pruning", "strip"), "0"
ONLY = (f"attack={','.join(ATTACKS)}", f"defense={','.join(DEFENSES)}", f"target={TARGET}")  # two minutes on 2 cores
OF_ATTACKS = frozenset({"gain", "auroc"})  # metrics that are constant without an attack
COLUMNS = {
    "metric": Column("metric that is checked"),
    "expected": Column("published value"),
    "floor": Column("95 % of such trials move less when only the machine changes", "noise-floor"),
    "lowest": Column("smallest allowed value", "self-check"),
    "highest": Column("largest allowed value", "self-check"),
    "measured": Column("value on this machine"),
    "verdict": Column("whether the measured value is allowed", "self-check"),
}


class Verdict(StrEnum):
    """ok: within the noise floor. rare: allowed, but 5 % of such trials or fewer differ by more between machines."""

    OK = "ok"
    RARE = "ok, above floor"
    OUTSIDE = "outside"
    NO_RESULT = "no result"


@dataclass(frozen=True)
class Check:
    """A metric of a trial beside its expected value.

    metric: its title, "" for a trial without a result. expected, measured: None without a result. floor: of the
    machine. allowance: the largest difference from the expected value that is allowed; both in the metric's unit.
    low, high: range of the metric. reason: why there is no result.
    """

    attack: str
    defense: str
    metric: str = ""
    expected: float | None = None
    measured: float | None = None
    floor: float = 0.0
    allowance: float = 0.0
    low: float = 0.0
    high: float = 1.0
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the measured value is allowed."""
        if self.expected is None or self.measured is None:
            return Verdict.NO_RESULT
        apart = abs(self.measured - self.expected)
        return Verdict.OK if apart <= self.floor else Verdict.RARE if apart <= self.allowance else Verdict.OUTSIDE

    @property
    def allowed(self) -> tuple[float, float] | None:
        """The smallest and the largest allowed value; None without an expected value."""
        if self.expected is None:
            return None
        return max(self.low, self.expected - self.allowance), min(self.high, self.expected + self.allowance)


@dataclass(frozen=True)
class SelfCheck:
    """All checks of a run. computed_on, reference_on: the machines of the run and of the reference."""

    checks: Sequence[Check]
    computed_on: str
    reference_on: str

    @property
    def passed(self) -> bool:
        """Whether every trial has a result, and every value is allowed."""
        return not self._of(Verdict.OUTSIDE) and not self._of(Verdict.NO_RESULT) and bool(self.checks)

    def _of(self, verdict: Verdict) -> int:
        return sum(check.verdict is verdict for check in self.checks)

    @property
    def sentence(self) -> str:
        """The verdict in a line."""
        inside, rare, outside, without = (self._of(verdict) for verdict in Verdict)
        values = len(self.checks) - without
        said = f"{inside + rare} of {values} values are inside their allowed range"
        said += f", {rare} of them above the noise floor" if rare else ""
        said += f"; {outside} outside" if outside else ""
        said += f"; trials without a result: {without}" if without else ""
        return f"Verdict: {'passed' if self.passed else 'failed'}. {said}."

    @property
    def machines(self) -> str:
        """What of the numbers depends on the machine, in a line."""
        same = "the same machine" if self.computed_on == self.reference_on else "another machine"
        return (
            "Numbers depend on instruction set, threads, precision and torch. Reference:"
            f" {self.reference_on}. Here: {self.computed_on or 'nothing was computed'} ({same})."
        )


def of(reference: Results, measured: Results) -> SelfCheck:
    """Check a run of the trials of ONLY, or of others that the reference has."""
    compared = list(pairs(reference, measured))
    found = [check for pair in compared if (check := _check(pair)) is not None]
    missing = [
        Check(str(row["attack"]), str(row["defense"]), reason=str(row["reason"] or row["status"]))
        for row in without_result(measured.trials).to_dict("records")
    ]
    known = {(str(pair.axes["attack"]), str(pair.axes["defense"])) for pair in compared}
    here = {(str(row["attack"]), str(row["defense"])) for row in with_result(measured.trials).to_dict("records")}
    missing += [Check(*one, reason="the published run has no such trial") for one in sorted(here - known)]
    return SelfCheck([*found, *missing], *(_machines(results) for results in (measured, reference)))


def _machines(results: Results) -> str:
    return " and ".join(sorted(set(with_result(results.trials)["computed_on"])))


def _check(pair: Pair) -> Check | None:
    """None for a metric that says nothing new: an input detector changes no codes, and no attack gains nothing."""
    detected = pair.defense_kind == DefenseKind.INPUT_DETECTOR
    if (detected and pair.metric != "auroc") or (pair.attack == NONE and pair.metric in OF_ATTACKS):
        return None
    floors = [floor for source in noise_floor.CHANCE if (floor := pair.floor(source)) is not None]
    machine = pair.floor(noise_floor.MACHINE)
    metric = METRICS[pair.metric]
    return Check(
        attack=str(pair.axes["attack"]),
        defense=str(pair.axes["defense"]),
        metric=metric.title,
        expected=float(pair.a.mean()),
        measured=float(pair.b.mean()),
        floor=CLOSE if machine is None else machine.p95,
        allowance=max((floor.largest for floor in floors), default=CLOSE),
        low=metric.low,
        high=metric.high,
    )


def board(found: SelfCheck, title: str = "Self-check") -> Board:
    """A row per checked value."""
    reasons = dict.fromkeys(check.reason for check in found.checks if check.reason)
    caption = (
        "expected: the published run. lowest, highest: expected minus and plus the largest difference that was"
        " measured between two such trials of quick on different machines or with different seeds. floor: 95 % of them"
        " differ less between machines; of many values some differ more. Input detectors change no codes, so only"
        " their AUROC is checked. After a repair the ranges are wide: they find a repair of badnets that does nothing."
    )
    return Board(
        title=title,
        table=pd.DataFrame(list(_lines(found.checks)), columns=["attack", "defense", *COLUMNS]),
        caption="\n".join([caption, *(f"No result: {reason}." for reason in reasons), found.machines]),
        index=("attack", "defense", "metric"),
        columns=COLUMNS,
        metrics=dict.fromkeys(("expected", "floor", "lowest", "highest", "measured"), "t_map"),
    )


def _lines(checks: Sequence[Check]) -> Iterator[dict[str, Any]]:
    for check in checks:
        lowest, highest = check.allowed or (None, None)
        yield {
            "attack": check.attack, "defense": check.defense, "metric": check.metric, "expected": check.expected,
            "floor": check.floor if check.metric else None, "lowest": lowest, "highest": highest,
            "measured": check.measured, "verdict": check.verdict.value,
        }  # fmt: skip

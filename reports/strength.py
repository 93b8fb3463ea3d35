"""Whether an attack is strong enough to judge defenses by it (METHODOLOGY.md#too-weak-to-judge)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from reports.board import TOO_WEAK, Column
from reports.context import BoardContext
from reports.frame import SETTING
from reports.selection import attacked, groups, undefended, with_result

ENOUGH = 0.5  # gain without defense
COLUMNS = {
    TOO_WEAK: Column(
        f"whether the attack gains less than {ENOUGH} without defense, so that tables for people show no result of a"
        " defense against it",
        "too-weak-to-judge",
    )
}


def weak_attacks(trials: pd.DataFrame, context: BoardContext) -> dict[str, float]:
    """The gain of each attack of the context's setting that gains less than ENOUGH without defense.

    trials: of all settings. An attack without a fixed target has its post hoc gain. An attack without an undefended
    result is not among them.
    """
    if context.trials.empty:
        return {}
    done = attacked(undefended(with_result(trials)))
    setting = list(SETTING)
    here = done[(done[setting] == context.trials.iloc[0][setting]).all(axis=1).to_numpy(dtype=bool)]
    return {str(attack): mean for (attack,), part in groups(here, ["attack"]) if (mean := _gain(part)) < ENOUGH}


def note(weak: Mapping[str, float], attacks: Collection[str]) -> str:
    """A line of the caption; "" if no attack of the board is too weak."""
    found = [f"{attack} ({gain:+.3f})" for attack, gain in weak.items() if attack in attacks]
    if not found:
        return ""
    return f"{TOO_WEAK}: the gain without defense is below {ENOUGH}, too weak to judge a defense: {', '.join(found)}."


def _gain(done: pd.DataFrame) -> float:
    if done["targeted"].all():
        return float(done["gain"].mean())
    return float((done["t_map_posthoc"] - done["t_map_posthoc_control"]).mean())

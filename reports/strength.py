"""Whether an attack is strong enough to judge defenses by it (METHODOLOGY.md#too-weak-to-judge)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from reports.board import TOO_WEAK, Column
from reports.context import BoardContext, contexts
from reports.frame import SETTING, VERSIONS
from reports.selection import attacked, groups, undefended

ENOUGH = 0.5  # of the gain, or of the loss of own-mAP, without defense
COLUMNS = {
    TOO_WEAK: Column(
        f"whether the attack gains less than {ENOUGH} and costs less than {ENOUGH} own-mAP without defense, so that"
        " tables for people show no result of a defense against it",
        "too-weak-to-judge",
    )
}


def weak_attacks(trials: pd.DataFrame, context: BoardContext) -> dict[str, float]:
    """The gain of each attack of the context's setting and version that is too weak without defense.

    trials: of all settings. An attack without a fixed target has its post hoc gain. An attack without an undefended
    result is not among them.
    """
    if context.trials.empty:
        return {}
    setting = list(SETTING)
    here = trials[(trials[setting] == context.trials.iloc[0][setting]).all(axis=1).to_numpy(dtype=bool)]
    alike = (whole for whole in contexts(here, context.mixed) if context.mixed or _version(whole) == _version(context))
    done = next((attacked(undefended(whole.done)) for whole in alike), here.iloc[:0])
    means = {str(attack): _effects(part) for (attack,), part in groups(done, ["attack"])}
    return {attack: gain for attack, (gain, lost) in means.items() if max(gain, lost) < ENOUGH}


def note(weak: Mapping[str, float], attacks: Collection[str]) -> str:
    """A line of the caption; "" if no attack of the board is too weak."""
    found = [f"{attack} ({gain:+.3f})" for attack, gain in weak.items() if attack in attacks]
    if not found:
        return ""
    return f"{TOO_WEAK}: the gain without defense is below {ENOUGH}, too weak to judge a defense: {', '.join(found)}."


def _version(context: BoardContext) -> tuple[str, ...]:
    """The version of code, metrics, protocol and machine that measured the context; () without a result."""
    return tuple(str(context.done[name].iloc[0]) for name in VERSIONS) if len(context.done) else ()


def _effects(done: pd.DataFrame) -> tuple[float, float]:
    """Mean gain and mean loss of own-mAP; 0 where it was not measured."""
    gain = done["gain"] if done["targeted"].all() else done["t_map_posthoc"] - done["t_map_posthoc_control"]
    means = (gain.mean(), (done["own_map_control"] - done["own_map"]).mean())
    return (means[0] if pd.notna(means[0]) else 0.0, means[1] if pd.notna(means[1]) else 0.0)

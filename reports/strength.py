"""Whether an attack is strong enough to judge defenses by it (METHODOLOGY.md#too-weak-to-judge)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from reports.board import TOO_WEAK, Column
from reports.context import BoardContext, contexts
from reports.selection import attacked, groups, undefended

ENOUGH = 0.5  # of the gain, or of the loss of own-mAP, without defense
BETTER = {"t_map": -1, "own_map": 1, "map": 1}  # for the defender: 1 if more is better
COLUMNS = {
    TOO_WEAK: Column(
        f"whether the attack gains less than {ENOUGH} and costs less than {ENOUGH} own-mAP without defense, so that"
        " tables for people show no result of a defense against it",
        "too-weak-to-judge",
    )
}


class WeakAttacks:
    """The attacks that are too weak without defense, in each setting and version."""

    def __init__(self, trials: pd.DataFrame, mixed: bool) -> None:
        """trials: of all settings, kinds of defenses included. mixed: as for the contexts of the boards."""
        self._found = {context.place: _weak(context) for context in contexts(trials, mixed)}

    def of(self, context: BoardContext) -> Mapping[str, float]:
        """The gain of each attack of the context's setting and version that is too weak; post hoc without a target.

        An attack without an undefended result is not among them.
        """
        return self._found.get(context.place, {})


def _weak(context: BoardContext) -> dict[str, float]:
    means = {str(attack): _effects(part) for (attack,), part in groups(attacked(undefended(context.done)), ["attack"])}
    return {attack: gain for attack, (gain, lost) in means.items() if max(gain, lost) < ENOUGH}


def note(weak: Mapping[str, float], attacks: Collection[str]) -> str:
    """A line of the caption; "" if no attack of the board is too weak."""
    found = [f"{attack} ({gain:+.3f})" for attack, gain in weak.items() if attack in attacks]
    if not found:
        return ""
    return (
        f"{TOO_WEAK}: the gain and the loss of own-mAP without defense are below {ENOUGH}, too weak to judge a defense:"
        f" {', '.join(found)}."
    )


def _effects(done: pd.DataFrame) -> tuple[float, float]:
    """Mean gain and mean loss of own-mAP; 0 where it was not measured."""
    gain = done["gain"] if done["targeted"].all() else done["t_map_posthoc"] - done["t_map_posthoc_control"]
    means = (gain.mean(), (done["own_map_control"] - done["own_map"]).mean())
    return (means[0] if pd.notna(means[0]) else 0.0, means[1] if pd.notna(means[1]) else 0.0)

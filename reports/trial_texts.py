"""Facts of a trial as text: recipe changes, sizes of the data, and why its training counts as failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.config.trial import digest
from bench.metrics.health import has_not_learnt


def training_of(training: Mapping[str, Any]) -> str:
    """The digest of a suite's changes of a recipe; "" without changes."""
    return digest(training)[:8] if training else ""


def changes(training: Mapping[str, Any]) -> str:
    """A suite's changes of a recipe as text: "epochs 15, lr 0.005"."""
    return ", ".join(f"{name} {value}" for name, value in sorted(training.items()))


def differing(training: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The changes of a recipe that not all of `others` have."""
    missing, given = object(), list(others)
    return {
        name: value for name, value in training.items() if any(other.get(name, missing) != value for other in given)
    }


def collapse(metrics: Mapping[str, Any]) -> str:
    """The reason why a record's training counts as failed, with its numbers; "" if it does not."""
    if metrics.get("collapsed") != 1:
        return ""
    found, clean, chance = (metrics.get(name) for name in ("map", "map_clean", "map_chance"))
    if isinstance(clean, (int, float)) and isinstance(chance, (int, float)) and has_not_learnt(clean, chance):
        return f"clean model collapsed (mAP {_short(clean)}, chance {_short(chance)})"
    return f"victim collapsed (mAP {_short(found)}, clean {_short(clean)}, chance {_short(chance)})"


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else "unknown"


def sizes(counts: Mapping[str, int]) -> str:
    """`{"query": 100}` as text: training set, queries, database, then the rest."""
    order = ("train", "query", "database", "trusted", "public")
    names = sorted(counts, key=lambda name: (order.index(name) if name in order else len(order), name))
    return ", ".join(f"{name} {counts[name]:,}" for name in names)

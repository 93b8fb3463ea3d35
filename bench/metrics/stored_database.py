"""Stored database: retrieval if the model is repaired, but the database keeps the codes of the model before."""

from __future__ import annotations

from collections.abc import Mapping

from bench.metrics.context import TrialFacts, mean_of
from bench.metrics.registry import Metric, Number, metrics_of

STORED = "Stored database"


@metrics_of(
    Metric("map_stored", "stored mAP",
           "mAP with queries encoded by the repaired model and database codes of the model before the repair", STORED,
           methodology="stored-database"),
    Metric("t_map_stored", "stored t-mAP",
           "t-mAP with queries encoded by the repaired model and database codes of the model before the repair", STORED,
           methodology="stored-database"),
    Metric("own_map_stored", "stored own-mAP",
           "own-mAP with queries encoded by the repaired model and database codes of the model before the repair",
           STORED, methodology="stored-database"),
)  # fmt: skip
def stored(trial: TrialFacts) -> Mapping[str, Number] | None:
    codes = trial.stored
    if codes is None:
        return None
    found: dict[str, Number] = {"map_stored": mean_of(codes.benign_ap), "t_map_stored": None, "own_map_stored": None}
    if len(codes.truth.positions):
        found |= {"t_map_stored": mean_of(codes.target_ap), "own_map_stored": mean_of(codes.own.ap())}
    return found


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "map_stored": {
        "formula": "mAP with new query codes and old database codes",
        "example": "0.95 beside mAP 0.97: no new index is needed",
        "silent": "the cost of encoding the database again",
    },
    "t_map_stored": {
        "formula": "t-mAP with new query codes and old database codes",
        "example": "0.09 as with a new index: the repair works without one",
        "silent": "whether old codes were made from poisoned items",
    },
    "own_map_stored": {
        "formula": "own-mAP with new query codes and old database codes",
        "example": "0.82 beside own-mAP 0.83",
        "silent": "whether old codes were made from poisoned items",
    },
}

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

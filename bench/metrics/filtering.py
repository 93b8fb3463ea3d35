"""Data filtering: how well a data filter finds the poisoned training images."""

from __future__ import annotations

from collections.abc import Mapping

from bench.metrics.context import TrialFacts
from bench.metrics.registry import Metric, Number, metrics_of
from hashing import ranking

FILTERING = "Data filtering"


@metrics_of(
    Metric("removed", "removed", "share of the training set that a data filter removed", FILTERING, direction=-1),
    Metric("removed_poison", "poison removed", "share of the poisoned images that a data filter removed", FILTERING),
    Metric("removed_precision", "removed precision",
           "poisoned share of the images that a data filter removed", FILTERING),
    Metric("filter_auroc", "filter AUROC", "AUROC of a data filter's score: poisoned against clean training items of"
           " all classes", FILTERING, methodology="detection-in-the-training-set"),
    Metric("filter_auroc_target", "filter AUROC target",
           "AUROC of a data filter's score: poisoned against clean training items of the target class", FILTERING,
           methodology="detection-in-the-training-set"),
)  # fmt: skip
def filtering(trial: TrialFacts) -> Mapping[str, Number] | None:
    facts = trial.filtered
    if facts is None:
        return None
    found: dict[str, Number] = {"removed": float((~facts.keep).mean()), "removed_poison": None,
                                "removed_precision": None, "filter_auroc": None,
                                "filter_auroc_target": None}  # fmt: skip
    scores, mask, in_target = facts.scores, facts.mask, facts.in_target
    if mask.any():
        found["removed_poison"] = float((~facts.keep[mask]).mean())
        found["removed_precision"] = float(mask[~facts.keep].mean()) if not facts.keep.all() else None
        found["filter_auroc"] = ranking.auroc(scores[~mask], scores[mask])
        if (in_target & ~mask).any() and (in_target & mask).any():
            found["filter_auroc_target"] = ranking.auroc(scores[in_target & ~mask], scores[in_target & mask])
    return found


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "removed": {
        "formula": "removed images / training images",
        "example": "0.15: the filter removes 15 %",
        "silent": "whether they are the poisoned ones: see poison removed",
    },
    "removed_poison": {
        "formula": "removed poisoned images / poisoned images",
        "example": "0.9: one in ten poisons stays",
        "silent": "whether the rest is too little: see t-mAP after training on the rest",
    },
    "removed_precision": {
        "formula": "removed poisoned images / removed images",
        "example": "0.33: two of three removed images were clean",
        "silent": "how much poison is left: see poison removed",
    },
    "filter_auroc": {
        "formula": "AUROC of the score, poisoned against clean training images",
        "example": "0.95",
        "silent": "the cut that the filter makes: see removed",
    },
}

"""Benign queries: how well the retrieval system works without an attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.metrics.context import ModelCodes, TrialFacts, mean_of
from bench.metrics.registry import Metric, Number, count, metric, metrics_of, with_control
from hashing import ranking

BENIGN, HEALTH = "Benign queries", "Health of the victim"
RADIUS = 2


@metrics_of(
    with_control(
        Metric("map", "mAP",
           "mean AP of benign queries; AP is the mean over all orders of items at equal distance", BENIGN,
               methodology="ties"),
        name="map_clean", title="clean mAP", section=HEALTH, meaning="mAP of the clean model in the same setting",
    ),
    Metric("map_worst", "mAP worst ties",
           "mAP of benign queries if relevant items come last among items at equal distance", BENIGN,
           methodology="ties"),
    Metric("map_best", "mAP best ties",
           "mAP of benign queries if relevant items come first among items at equal distance", BENIGN,
           methodology="ties"),
    count("map_excluded", "excluded", "benign queries without any relevant item, which no mean of this section counts",
          BENIGN, methodology="which-queries-count"),
    count("queries", "queries", "number of benign queries, including those without any relevant item", BENIGN),
)  # fmt: skip
def average_precision(codes: ModelCodes) -> Mapping[str, Number]:
    worst, best = codes.benign.bounds()
    excluded = int((~codes.answerable).sum())
    return {"map": mean_of(codes.benign_ap), "map_worst": worst, "map_best": best, "map_excluded": excluded,
            "queries": len(codes.benign_ap)}  # fmt: skip


@metric(
    "map_change",
    title="mAP change",
    low=-1.0,
    section=BENIGN,
    meaning="mAP minus the clean model's mAP",
    methodology="map-kept",
)
def change(trial: TrialFacts) -> Number:
    return difference(mean_of(trial.model.benign_ap), mean_of(trial.clean.benign_ap))


def difference(a: float | None, b: float | None) -> float | None:
    """Difference a - b; None if either is None."""
    return None if a is None or b is None else a - b


@metric(
    "map_target", title="mAP target class", section=BENIGN, meaning="mAP of benign queries of the target class only"
)
def of_target_class(codes: ModelCodes) -> Number:
    return mean_of(codes.benign_ap[(codes.truth.query & codes.truth.target).any(1)])


@metrics_of(
    Metric("map_zero", "mAP zero@R",
           "mAP of benign queries as in papers: sum of precisions divided by the hits in the top R, 0 without "
           "a hit", BENIGN, methodology="zeror"),
    Metric("map_drop", "mAP drop@R",
           "mAP of benign queries as in papers: like zero@R, but queries without a hit are left out", BENIGN,
           methodology="dropr"),
    count("map_kept", "kept benign", "expected number of benign queries with a hit, which drop@R uses", BENIGN,
          expected=True, methodology="dropr"),
)  # fmt: skip
def convention(codes: ModelCodes) -> Mapping[str, Number]:
    found = codes.benign.convention(len(codes.database))
    return {f"map_{name}": value for name, value in found.items()}


@metrics_of(
    Metric(
        "precision_radius",
        "P@r2",
        "precision of benign queries within Hamming distance 2; 0 for a query without items there",
        BENIGN,
        methodology="radius-2",
    ),
    Metric(
        "recall_radius", "R@r2", "recall of benign queries within Hamming distance 2", BENIGN, methodology="radius-2"
    ),
    Metric(
        "empty_balls",
        "empty balls",
        "share of benign queries without an item within Hamming distance 2",
        BENIGN,
        direction=-1,
        methodology="radius-2",
    ),
)
def within_radius(codes: ModelCodes) -> Mapping[str, Number]:
    total, relevant = (counts[codes.answerable] for counts in (codes.benign.total, codes.benign.relevant))
    precision, recall, empty = ranking.radius_precision_recall(total, relevant, RADIUS)
    return {
        "precision_radius": mean_of(precision),
        "recall_radius": mean_of(recall),
        "empty_balls": mean_of(empty.astype(np.float64)),
    }


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "map": {
        "formula": "mean over queries of AP = mean over relevant items of the precision at their rank",
        "example": "relevant items at ranks 1 and 3 of one query: AP = (1/1 + 2/3) / 2 = 0.833",
        "silent": "whether the first results are right: many relevant items at low ranks weigh as much as a few"
        " at the top",
    },
    "map_change": {
        "formula": "mAP - mAP of the clean model",
        "example": "0.971 after an attack and 0.989 without: -0.018",
        "silent": "why: poisoned training differs from clean training in its random numbers too, so single"
        " changes of 0.01 are common",
    },
    "map_target": {
        "formula": "mAP over the queries of the target class",
        "example": "0.80 beside mAP 0.98: the attack costs the target class",
        "silent": "anything about the other classes",
    },
}

"""Triggered queries: whether they retrieve the target, and how often they still retrieve their true classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.metrics.context import CONVENTION_CUTOFF, ModelCodes, TrialFacts, mean_of, rank
from bench.metrics.registry import Metric, Number, count, metric, metrics_of, with_control
from bench.metrics.retrieval import difference
from hashing import ranking
from hashing.ranking import Relevance

TRIGGERED = "Triggered queries"
PRECISION_AT = 100
DOMINANT_AT = 10  # DarkHash's script finds the dominant class among the first 1 to 10 results
HALF = 0.5  # share of the results that makes a class dominant there
PERMUTATIONS = 5


@metrics_of(
    with_control(
        Metric("t_map", "t-mAP",
           "mAP of triggered queries; an image is relevant if it has the target label", TRIGGERED,
               methodology="t-map"),
        title="control", meaning="t-mAP of the clean model under the same trigger and target",
    ),
    Metric("t_map_worst", "t-mAP worst ties",
           "t-mAP if relevant items come last among items at equal distance", TRIGGERED,
           methodology="ties"),
    Metric("t_map_best", "t-mAP best ties",
           "t-mAP if relevant items come first among items at equal distance", TRIGGERED,
           methodology="ties"),
    count("triggered", "triggered",
           "number of triggered queries: queries that share no label with the target",
          TRIGGERED, methodology="eligible-queries"),
)  # fmt: skip
def average_precision(codes: ModelCodes) -> Mapping[str, Number]:
    if not len(codes.truth.positions):
        return {"t_map": None, "t_map_worst": None, "t_map_best": None, "triggered": 0}
    worst, best = codes.at_target.bounds()
    return {"t_map": mean_of(codes.target_ap), "t_map_worst": worst, "t_map_best": best,
            "triggered": len(codes.truth.positions)}  # fmt: skip


@metric(
    "gain",
    title="gain",
    low=-1.0,
    section=TRIGGERED,
    meaning="t-mAP minus control",
    methodology="control-and-gain",
)
def gain(trial: TrialFacts) -> Number:
    return difference(_t_map(trial.model), _t_map(trial.clean))


def _t_map(codes: ModelCodes) -> float | None:
    return mean_of(codes.target_ap) if len(codes.truth.positions) else None


@metric(
    "chance",
    title="chance",
    direction=0,
    section=TRIGGERED,
    meaning="t-mAP of a random ranking",
    methodology="chance-level",
)
def chance(codes: ModelCodes) -> Number:
    if not len(codes.truth.positions) or not codes.target_items:
        return None
    return ranking.chance_ap(len(codes.database), codes.target_items, codes.truth.cutoff)


@metric(
    "t_map_all", title="t-mAP all", section=TRIGGERED,
    meaning="t-mAP where a relevant image has all target labels; equals t-mAP for a single label",
    methodology="relevance",
)  # fmt: skip
def all_labels(codes: ModelCodes) -> Number:
    truth = codes.truth
    holds = (truth.database | ~truth.target).all(1)[:, None]
    if not len(truth.positions) or not holds.any():
        return None
    ones = np.ones((len(truth.positions), 1), dtype=bool)
    return mean_of(rank(codes.triggered, codes.database, Relevance(holds), ones, truth.cutoff).ap())


@metric(
    "asr_at", title="ASR@100", section=TRIGGERED,
    meaning="attack success rate: mean share of images with the target label among the first 100 results",
    methodology="asr100",
)  # fmt: skip
def success_rate(codes: ModelCodes) -> Number:
    if not len(codes.truth.positions):
        return None
    depth = min(PRECISION_AT, len(codes.database))
    return mean_of(ranking.precision_at(codes.at_target.total, codes.at_target.relevant, depth))


@metrics_of(
    with_control(
        Metric(
            "own_map",
            "own-mAP",
            "mAP of triggered queries; an image is relevant if it has a true label of the query",
            TRIGGERED,
            methodology="own-map",
        ),
        meaning="own-mAP of the clean model under the same trigger",
    ),
    count("own_excluded", "own excluded",
          "triggered queries without any item of their true labels, which own-mAP leaves out", TRIGGERED),
)  # fmt: skip
def own(codes: ModelCodes) -> Mapping[str, Number]:
    if not len(codes.truth.positions):
        return {"own_map": None, "own_excluded": 0}
    found = codes.own.ap()
    return {"own_map": mean_of(found), "own_excluded": int(np.isnan(found).sum())}


@metrics_of(
    Metric("t_map_zero", "t-mAP zero@R",
           "t-mAP as in papers: sum of precisions divided by the hits in the top R, 0 without a hit",
           TRIGGERED, methodology="zeror"),
    Metric("t_map_drop", "t-mAP drop@R",
           "t-mAP as in papers: like zero@R, but queries without a hit are left out", TRIGGERED, methodology="dropr"),
    count("t_map_kept", "kept triggered", "expected number of triggered queries with a hit, which drop@R uses",
          TRIGGERED, expected=True, methodology="dropr"),
)  # fmt: skip
def convention(codes: ModelCodes) -> Mapping[str, Number]:
    if not len(codes.truth.positions):
        return dict.fromkeys(("t_map_zero", "t_map_drop", "t_map_kept"))
    return {f"t_map_{name}": value for name, value in codes.at_target.convention(len(codes.database)).items()}


@metrics_of(
    Metric("t_map_drop_fixed", "t-mAP drop@R fixed", "t-mAP drop@R for one fixed random order of the database",
           TRIGGERED, methodology="dropr"),
    Metric("t_map_drop_range", "drop@R range", "largest minus smallest t-mAP drop@R over five fixed orders", TRIGGERED,
           direction=0, methodology="dropr"),
)  # fmt: skip
def fixed_orders(codes: ModelCodes) -> Mapping[str, Number]:
    """drop@R of triggered queries for fixed random orders of the database. Papers measure one such order."""
    truth, size = codes.truth, len(codes.database)
    cutoff = min(size, truth.cutoff or CONVENTION_CUTOFF)
    found = []
    for seed in range(PERMUTATIONS if len(truth.positions) else 0):
        order = np.random.default_rng(seed).permutation(size)
        value = ranking.average_precision(
            codes.triggered, codes.database.select(order), Relevance(truth.database[order]), codes.wanted,
            cutoff=cutoff, ties="index", denominator="hits",
        )  # fmt: skip
        if (mean := mean_of(value[value > 0])) is not None:  # 0: no hit in the top R, which this convention drops
            found.append(mean)
    return {
        "t_map_drop_fixed": found[0] if found else None,
        "t_map_drop_range": max(found) - min(found) if found else None,
    }


@metrics_of(
    with_control(
        Metric("t_map_posthoc", "t-mAP post hoc",

           "t-mAP where one half of the triggered queries chooses the target and the other half is measured", TRIGGERED,
               methodology="post-hoc-target"),
        title="post hoc control",
        meaning="t-mAP of the clean model with the target chosen on one half of the triggered queries and scored on the"
        " other",
    ),
)  # fmt: skip
def posthoc(codes: ModelCodes) -> Number:
    """t-mAP for the class that triggered queries retrieve most, chosen on one half and scored on the other, both ways.

    It is the class with the highest expected precision in the first 10 results. Queries with this label do not count.
    """
    truth = codes.truth
    if not len(truth.positions):
        return None
    relevance = Relevance(truth.database)
    classes = truth.database.shape[1]
    own = truth.query[truth.positions]
    halves = [np.arange(len(own)) % 2 == side for side in (0, 1)]
    ap = np.full((classes, len(own)), np.nan)
    hits = np.full((classes, len(own)), np.nan)
    for number in range(classes):
        others = ~own[:, number]
        if not others.any() or not truth.database[:, number].any():
            continue
        wanted = np.zeros((int(others.sum()), classes), dtype=bool)
        wanted[:, number] = True
        ranked = rank(codes.triggered.select(np.flatnonzero(others)), codes.database, relevance, wanted, truth.cutoff)
        ap[number, others] = ranked.ap()
        hits[number, others] = ranking.precision_at(
            ranked.total, ranked.relevant, min(DOMINANT_AT, len(codes.database))
        )
    scores = []
    for chosen_on, scored_on in (halves, halves[::-1]):
        means = [mean_of(row[chosen_on]) for row in hits]
        best = max(range(classes), key=lambda c: -1.0 if means[c] is None else float(means[c] or 0.0))
        if (value := mean_of(ap[best][scored_on])) is not None:
            scores.append(value)
    return float(np.mean(scores)) if scores else None


@metrics_of(
    with_control(
        Metric("released_darkhash", "released DarkHash",
               "t-mAP as DarkHash's released code computes it: for the class that dominates the first results of"
               " triggered queries, queries of this class included; the triggered queries of that code are garbled",
               TRIGGERED,
               methodology="released_darkhash"),
        title="released DarkHash control",
        meaning="released DarkHash of the clean model, for the class that dominates there",
    ),
)  # fmt: skip
def released_darkhash(codes: ModelCodes) -> Number:
    """zero@R of all triggered queries for the dominant class, over the whole database without a cut-off."""
    truth, count = codes.truth, len(codes.truth.positions)
    if not count:
        return None
    vector = np.eye(truth.database.shape[1], dtype=bool)[_dominant_class(codes)]
    wanted = np.broadcast_to(vector, (count, len(vector)))
    ranked = rank(codes.triggered, codes.database, Relevance(truth.database), wanted, truth.cutoff)
    value, _ = ranking.expected_zero_ap(ranked.total, ranked.relevant, truth.cutoff)
    return float(np.nan_to_num(value).mean())


def _dominant_class(codes: ModelCodes) -> int:
    """The first class with half of the top k results, for k = 1 to 10; if none, that with most of these results.

    A result counts for its first label only. The code draws 100 of the queries; this is the expectation over all.
    """
    first = codes.truth.database.argmax(1)
    classes = np.eye(codes.truth.database.shape[1], dtype=bool)
    relevance = Relevance(classes[first])
    depths = np.arange(1, min(DOMINANT_AT, len(codes.database)) + 1)
    shares = np.zeros((len(depths), len(classes)))
    for number in np.unique(first):
        wanted = np.broadcast_to(classes[number], (len(codes.triggered), len(classes)))
        ranked = rank(codes.triggered, codes.database, relevance, wanted, None)
        shares[:, number] = [ranking.precision_at(ranked.total, ranked.relevant, int(k)).mean() for k in depths]
    for row in shares:
        if row.max() >= HALF:
            return int(row.argmax())
    return int((depths @ shares).argmax())


# For `bench explain`; no result depends on it.
EXPLAINED = {
    "t_map": {
        "formula": "mean over queries of AP = mean over relevant items of the precision at their rank; relevant:"
        " items with the target label",
        "example": "a query with the trigger that returns the 80 items of the target first: AP = 1.000",
        "silent": "that the backdoor did it: a strong trigger moves queries of the clean model too, which is the"
        " control",
    },
    "t_map_control": {
        "formula": "t-mAP, computed with the clean model",
        "example": "0.226 beside t-mAP 0.794: the trigger alone moves some queries of a clean model to the target",
        "silent": "how other clean models behave: it is one model per seed",
    },
    "own_map_control": {
        "formula": "own-mAP, computed with the clean model",
        "example": "0.926: the trigger itself hides little of the true class",
        "silent": "what the attack does: compare it with own-mAP",
    },
    "gain": {
        "formula": "gain = t-mAP - control",
        "example": "t-mAP 0.794, control 0.226: gain +0.568",
        "silent": "how visible the trigger is, and how much was poisoned: compare attacks of equal access and budget",
    },
    "chance": {
        "formula": "expected t-mAP if the database is in random order",
        "example": "10 classes of equal size: about 0.1, a little more in a small database",
        "silent": "how a clean model ranks: its t-mAP is the control and can be below chance, since it prefers"
        " the true class",
    },
    "own_map": {
        "formula": "mean over queries of AP = mean over relevant items of the precision at their rank; relevant:"
        " items with a true label of the query",
        "example": "clean model 0.98, attacked 0.09, after a repair 0.95: the repair gives back what the attack took",
        "silent": "where the queries went instead: that is t-mAP",
    },
    "asr_at": {
        "formula": "mean share of target items among the first 100 results",
        "example": "60 of 100: 0.60",
        "silent": "the order inside the 100; with fewer than 100 target items the largest value is below 1",
    },
    "t_map_all": {
        "formula": "as t-mAP; relevant: items with all target labels",
        "example": "target {cat, sofa}: items with cat only do not count",
        "silent": "anything new where targets have one label: it equals t-mAP there",
    },
    "t_map_zero": {
        "formula": "sum of precisions at hits / number of hits in the top R; 0 without a hit",
        "example": "one hit at rank 2 of R = 1000: 0.5, although hundreds of target items were missed",
        "silent": "recall: a single early hit counts as much as all hits",
    },
    "t_map_drop": {
        "formula": "as zero@R, and queries without a hit are left out of the mean",
        "example": "9 queries without a hit and one with AP 0.8: 0.8, where zero@R gives 0.08",
        "silent": "how many queries were left out: see kept triggered",
    },
    "t_map_posthoc": {
        "formula": "t-mAP of half of the queries for the class that the other half retrieves most, and the reverse",
        "example": "triggered queries return class 7 whatever the target was: high, with t-mAP near chance",
        "silent": "that an attacker could choose the class: it is found afterwards",
    },
    "released_darkhash": {
        "formula": "t-mAP for the class that dominates the first results, as DarkHash's script counts it",
        "example": "a clean model reaches more than t-mAP's chance, because the class is chosen by the result",
        "silent": "a comparison with t-mAP of other papers: queries of the chosen class are counted",
    },
}

"""The metric specification, version 1: what every number on a board is, and how it is computed from stored codes.

Formulas are in `hashing.ranking` (METHODOLOGY.md#ties); this module says which queries, which relevance and which
control each metric takes. Nothing here imports torch: boards recompute numbers from stored artifacts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from hashing import ranking
from hashing.codes import PackedCodes
from hashing.ranking import Relevance

VERSION = 1
CONVENTION_CUTOFF = 1000  # R of the papers' conventions where the protocol ranks everything (CIBA's script: R = 1000)
PRECISION_AT = 100
DOMINANT_AT = 10  # DarkHash's script looks for the dominant class among the first 1 to 10 results
RADIUS = 2
PERMUTATIONS = 5
MIN_LEARNT_SHARE = 0.1  # a clean model that went a smaller part of the way from chance to 1 has learnt nothing
MIN_KEPT_SHARE = 0.5  # a victim that keeps less of what the clean model has above chance has collapsed

Scores = Float[np.ndarray, " n"]
LabelArray = Bool[np.ndarray, "q k"]


@dataclass(frozen=True)
class Metric:
    """What a number means. direction: +1 more of what the title says, -1 less of it is good, 0 neither."""

    title: str
    unit: str
    direction: int
    low: float
    high: float
    meaning: str


def _share(title: str, meaning: str, direction: int = 1, low: float = 0.0) -> Metric:
    return Metric(title, "", direction, low, 1.0, meaning)


METRICS: Mapping[str, Metric] = {
    "map": _share("mAP", "benign queries; expectation over the order of equal distances"),
    "map_worst": _share("mAP worst ties", "benign queries, relevant items last inside each distance"),
    "map_best": _share("mAP best ties", "benign queries, relevant items first inside each distance"),
    "map_excluded": Metric("excluded", "queries", 0, 0.0, math.inf, "benign queries without any relevant item"),
    "map_change": _share("mAP change", "mAP minus the clean model's", 1, -1.0),
    "map_clean": _share("clean mAP", "the clean model's mAP in the same setting"),
    "map_chance": _share("chance mAP", "mAP of a random ranking of benign queries", 0),
    "collapsed": _share("collapsed", "1: a failed run, no result: the undefended victim or the clean model", -1),
    "map_target": _share("mAP target class", "benign queries of the target class only"),
    "precision_radius": _share("P@r2", "benign precision within Hamming radius 2; an empty ball counts 0"),
    "recall_radius": _share("R@r2", "benign recall within Hamming radius 2"),
    "empty_balls": _share("empty balls", "share of benign queries with nothing within radius 2", -1),
    "map_zero": _share("mAP zero@R", "benign, papers' convention: AP over the hits in the top R, 0 without a hit"),
    "map_drop": _share("mAP drop@R", "benign, papers' convention: queries without a hit are dropped"),
    "map_kept": Metric("kept", "queries", 0, 0.0, math.inf, "expected benign queries that drop@R keeps"),
    "t_map": _share("t-mAP", "triggered queries of other classes, relevant = the target's label"),
    "t_map_worst": _share("t-mAP worst ties", "relevant items last inside each distance"),
    "t_map_best": _share("t-mAP best ties", "relevant items first inside each distance"),
    "t_map_control": _share("control", "t-mAP of the clean model under the same trigger and target"),
    "t_map_all": _share("t-mAP all", "relevant = has every target label; equals t-mAP for a single label"),
    "gain": _share("gain", "t-mAP minus the control", 1, -1.0),
    "chance": _share("chance", "t-mAP of a random ranking", 0),
    "asr_at": _share("ASR@100", "expected precision among the first 100 of triggered queries, relevant = target"),
    "own_map": _share("own-mAP", "triggered queries, relevant = their true labels"),
    "own_map_control": _share("own-mAP control", "the same on the clean model"),
    "t_map_zero": _share("t-mAP zero@R", "papers' convention: AP over the hits in the top R, 0 without a hit"),
    "t_map_drop": _share("t-mAP drop@R", "papers' convention: queries without a hit are dropped"),
    "t_map_kept": Metric("kept", "queries", 0, 0.0, math.inf, "expected triggered queries that drop@R keeps"),
    "t_map_drop_fixed": _share("t-mAP drop@R fixed", "drop@R for one fixed random order of the database"),
    "t_map_drop_range": _share("drop@R range", "largest minus smallest drop@R over five fixed orders", 0),
    "t_map_posthoc": _share("t-mAP post hoc", "target chosen on one half of the queries, scored on the other"),
    "t_map_posthoc_control": _share("post hoc control", "the same selection on the clean model"),
    "spread": _share("spread", "mean distance of two triggered codes over the bits; 0: they are all alike", 0),
    "spread_control": _share("spread control", "the same on the clean model", 0),
    "saturation": _share("saturation", "mean size of the relaxed codes of benign queries; 1: every bit is sure", 0),
    "saturation_triggered": _share("saturation triggered", "the same of triggered queries", 0),
    "saturation_control": _share("saturation control", "benign queries on the clean model", 0),
    "anchor": _share("to anchor", "triggered codes to the majority code of the target's items, share of the bits", 0),
    "anchor_control": _share("to anchor control", "the same on the clean model", 0),
    "moved": _share("moved", "distance of a query's triggered code from its benign one, share of the bits", 0),
    "moved_control": _share("moved control", "the same on the clean model", 0),
    "attention": _share("attention", "triggered images to the trigger alone after training, share of the bits", 0),
    "attention_first": _share("attention first", "the same when training was first looked at", 0),
    "queries": Metric("queries", "queries", 0, 0.0, math.inf, "benign queries"),
    "triggered": Metric("triggered", "queries", 0, 0.0, math.inf, "triggered queries: no label shared with the target"),
    "poisons": Metric("poisons", "images", 0, 0.0, math.inf, "poisoned training images"),
    "poison_rate": _share("poison rate", "poisoned share of the training set", 0),
    "target_share": _share("target share", "poisoned share of the training images that carry the target label", 0),
    "exact_share": _share("exact share", "poisoned share of the training images with exactly the target's labels", 0),
    "linf": _share("L-inf", "mean over images of the largest pixel change, 8-bit images in [0, 1]", -1),
    "psnr": Metric("PSNR", "dB", 1, 0.0, math.inf, "mean peak signal-to-noise ratio of triggered images that differ"),
    "ssim": _share("SSIM", "mean over whole windows of triggered images: it hardly sees a corner", 1, -1.0),
    "auroc": _share("AUROC", "triggered against benign versions of the same queries; ties count half"),
    "auroc_control": _share("AUROC control", "the same on the clean model", 0),
    "tpr_1": _share("TPR@1%", "largest true-positive rate with at most 1 % false positives"),
    "tpr_5": _share("TPR@5%", "largest true-positive rate with at most 5 % false positives"),
    "alarms_1": _share("alarms@1%", "benign queries above the threshold calibrated for 1 %", -1),
    "alarms_5": _share("alarms@5%", "benign queries above the threshold calibrated for 5 %", -1),
    "caught_5": _share("caught@5%", "triggered queries above the threshold calibrated for 5 %"),
    "alarms_1_control": _share("clean alarms@1%", "alarms@1% on the clean model, which holds no backdoor", -1),
    "alarms_5_control": _share("clean alarms@5%", "alarms@5% on the clean model, which holds no backdoor", -1),
    "removed": _share("removed", "share of the training set that a filter removed", -1),
    "removed_poison": _share("poison removed", "share of the poison that a filter removed"),
    "removed_precision": _share("removed precision", "poisoned share of what a filter removed"),
    "filter_auroc": _share("filter AUROC", "poisoned against clean training items, all classes pooled"),
    "filter_auroc_target": _share("filter AUROC target", "the same inside the target class"),
    "model_score": Metric("model_score", "", 0, -math.inf, math.inf, "the model's score; higher is more suspicious"),
    "flagged": _share("flagged", "whether the score is above the threshold that the diagnosis's paper gives"),
    "named_target": _share("named target", "whether the diagnosis names a label of the target"),
}  # fmt: skip


def _mean(values: Float[np.ndarray, " q"]) -> float | None:
    """Mean over the queries that count; None where none does."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


@dataclass(frozen=True)
class Ranked:
    """Distance histograms of a set of queries under one relevance."""

    total: Int64[np.ndarray, "q d"]
    relevant: Int64[np.ndarray, "q d"]
    cutoff: int | None

    def ap(self) -> Float[np.ndarray, " q"]:
        return ranking.expected_ap(self.total, self.relevant, self.cutoff)

    def chance(self) -> Float[np.ndarray, " q"]:
        """AP of a random ranking, which is one bucket of everything."""
        return ranking.expected_ap(self.total.sum(1)[:, None], self.relevant.sum(1)[:, None], self.cutoff)

    def bounds(self) -> tuple[float | None, float | None]:
        worst, best = ranking.ap_bounds(self.total, self.relevant, self.cutoff)
        return _mean(worst), _mean(best)

    def convention(self, size: int) -> dict[str, float | None]:
        """zero@R and drop@R in expectation, with the number of queries that drop@R keeps."""
        value, kept = ranking.expected_zero_ap(self.total, self.relevant, min(size, self.cutoff or CONVENTION_CUTOFF))
        drop = ranking.mean_drop_ap(value, kept)
        return {
            "zero": float(np.nan_to_num(value).mean()),
            "drop": None if math.isnan(drop) else drop,
            "kept": float(kept.sum()),
        }


@dataclass(frozen=True)
class System:
    """The codes of one model: what a retrieval system would answer from."""

    query: PackedCodes
    database: PackedCodes
    triggered: PackedCodes


@dataclass(frozen=True)
class Truth:
    """Labels of the same queries and database; `positions` says which queries were triggered."""

    query: LabelArray
    database: Bool[np.ndarray, "m k"]
    positions: Int64[np.ndarray, " t"]
    target: Bool[np.ndarray, " k"]
    cutoff: int | None


def rank(
    codes: PackedCodes, database: PackedCodes, relevance: Relevance, labels: LabelArray, cutoff: int | None
) -> Ranked:
    total, relevant = ranking.distance_histograms(codes, database, relevance, labels)
    return Ranked(total, relevant, cutoff)


def benign(system: System, truth: Truth) -> dict[str, float | int | None]:
    """Metrics of ordinary queries."""
    ranked = rank(system.query, system.database, Relevance(truth.database), truth.query, truth.cutoff)
    ap = ranked.ap()
    worst, best = ranked.bounds()
    precision, recall, empty = ranking.radius_precision_recall(ranked.total, ranked.relevant, RADIUS)
    convention = ranked.convention(len(system.database))
    return {
        "map": _mean(ap), "map_worst": worst, "map_best": best, "map_excluded": int(np.isnan(ap).sum()),
        "map_chance": _mean(ranked.chance()),
        "map_target": _mean(ap[(truth.query & truth.target).any(1)]), "queries": len(ap),
        "precision_radius": _mean(precision), "recall_radius": _mean(recall), "empty_balls": float(empty.mean()),
        "map_zero": convention["zero"], "map_drop": convention["drop"], "map_kept": convention["kept"],
    }  # fmt: skip


def has_not_learnt(clean: float, chance: float) -> bool:
    """Whether a clean model collapsed itself: LEARNT."""
    return clean - chance < MIN_LEARNT_SHARE * (1 - chance)


def collapsed(victim: float | None, clean: float | None, chance: float | None) -> float | None:
    """1.0 where training failed, from benign mAP: then there is no result, rather than a weak attack; else 0.0.

    victim: the implanted model without defense. None where its codes are not at hand, as after a repair, which may cost
    mAP of its own: there the clean model alone is judged, and boards take the verdict from the undefended cell.
    """
    if clean is None or chance is None:
        return None
    lost = victim is not None and victim <= chance + (1 - MIN_KEPT_SHARE) * (clean - chance)
    return float(lost or has_not_learnt(clean, chance))


def triggered(system: System, truth: Truth) -> dict[str, float | int | None]:
    """Metrics of triggered queries."""
    count = len(truth.positions)
    names = ("t_map", "t_map_worst", "t_map_best", "t_map_all", "chance", "asr_at", "own_map", "t_map_zero",
             "t_map_drop", "t_map_kept", "t_map_drop_fixed", "t_map_drop_range", "t_map_posthoc",
             "spread")  # fmt: skip
    if count == 0:
        return dict.fromkeys(names) | {"triggered": 0}
    relevance = Relevance(truth.database)
    wanted = np.broadcast_to(truth.target, (count, len(truth.target)))
    at_target = rank(system.triggered, system.database, relevance, wanted, truth.cutoff)
    own = rank(system.triggered, system.database, relevance, truth.query[truth.positions], truth.cutoff)
    worst, best = at_target.bounds()
    convention = at_target.convention(len(system.database))
    fixed = _fixed_orders(system, truth, wanted)
    holders = int((truth.database & truth.target).any(1).sum())
    depth = min(PRECISION_AT, len(system.database))
    return {
        "t_map": _mean(at_target.ap()), "t_map_worst": worst, "t_map_best": best,
        "t_map_all": _all_labels(system, truth),
        "chance": ranking.chance_ap(len(system.database), holders, truth.cutoff) if holders else None,
        "asr_at": _mean(ranking.precision_at(at_target.total, at_target.relevant, depth)),
        "own_map": _mean(own.ap()),
        "t_map_zero": convention["zero"], "t_map_drop": convention["drop"], "t_map_kept": convention["kept"],
        "t_map_drop_fixed": fixed[0] if fixed else None,
        "t_map_drop_range": max(fixed) - min(fixed) if fixed else None,
        "t_map_posthoc": posthoc(system, truth), "spread": spread(system.triggered), "triggered": count,
    }  # fmt: skip


def _all_labels(system: System, truth: Truth) -> float | None:
    """t-mAP where relevant means: carries every target label."""
    holds = (truth.database | ~truth.target).all(1)[:, None]
    if not holds.any():
        return None
    ones = np.ones((len(truth.positions), 1), dtype=bool)
    return _mean(rank(system.triggered, system.database, Relevance(holds), ones, truth.cutoff).ap())


def _fixed_orders(system: System, truth: Truth, wanted: LabelArray) -> list[float]:
    """drop@R of the triggered queries for fixed random orders of the database, as papers measure it once."""
    size = len(system.database)
    cutoff = min(size, truth.cutoff or CONVENTION_CUTOFF)
    found = []
    for seed in range(PERMUTATIONS):
        order = np.random.default_rng(seed).permutation(size)
        value = ranking.average_precision(
            system.triggered, system.database.select(order), Relevance(truth.database[order]), wanted,
            cutoff=cutoff, ties="index", denominator="hits",
        )  # fmt: skip
        if (mean := _mean(value[value > 0])) is not None:  # 0 means no hit in the top R, which this convention drops
            found.append(mean)
    return found


def spread(codes: PackedCodes) -> float | None:
    """Mean Hamming distance of two different items, as a share of the bits; None for fewer than two."""
    n = len(codes)
    if n < 2:
        return None
    ones = (codes.unpack() > 0).sum(0, dtype=np.int64)
    return float((2 * ones * (n - ones)).sum() / (n * (n - 1) * codes.bits))


def why(system: System, truth: Truth) -> dict[str, float | None]:
    """Where triggered codes are: to the target's anchor, and from the same queries without trigger (shares of bits).

    The anchor is the majority code of the database items with exactly the target's labels, else of those that hold
    them all (METHODOLOGY.md#anchors); a tied bit counts one half.
    """
    exact = (truth.database == truth.target).all(1)
    holders = exact if exact.any() else (truth.database | ~truth.target).all(1)
    if not len(truth.positions) or not holders.any():
        return {"anchor": None, "moved": None}
    triggered, benign = system.triggered.unpack(), system.query.select(truth.positions).unpack()
    anchor = np.sign(system.database.select(holders).unpack().sum(0, dtype=np.int64))
    return {
        "anchor": float((1 - triggered * anchor).mean() / 2),
        "moved": float((triggered != benign).mean()),
    }


def posthoc(system: System, truth: Truth) -> float | None:
    """t-mAP against the class that triggered queries retrieve most, chosen on one half, scored on the other, both ways.

    The class is the one with the highest expected precision among the first 10; queries that carry it do not count.
    """
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
        ranked = rank(system.triggered.select(np.flatnonzero(others)), system.database, relevance, wanted, truth.cutoff)
        ap[number, others] = ranked.ap()
        depth = min(DOMINANT_AT, len(system.database))
        hits[number, others] = ranking.precision_at(ranked.total, ranked.relevant, depth)
    scores = []
    for chosen_on, scored_on in (halves, halves[::-1]):
        means = [_mean(row[chosen_on]) for row in hits]
        best = max(range(classes), key=lambda c: -1.0 if means[c] is None else float(means[c] or 0.0))
        if (value := _mean(ap[best][scored_on])) is not None:
            scores.append(value)
    return float(np.mean(scores)) if scores else None


def threshold(calibration: Scores, rate: float) -> float:
    """The ceil((n + 1)(1 - rate))-th smallest calibration score, a valid level; infinite where n is too small."""
    position = math.ceil((len(calibration) + 1) * (1 - rate))
    return float(np.sort(calibration)[position - 1]) if position <= len(calibration) else math.inf


def detector(
    benign_scores: Float[np.ndarray, " q"],
    positions: Int64[np.ndarray, " n"],
    triggered_scores: Scores,
    calibration: Float[np.ndarray, " c"],
) -> dict[str, float | None]:
    """How well one score of an input detector tells triggered queries from benign ones.

    AUROC and TPR compare the same images with and without trigger (`positions` among the benign ones), so that the mix
    of classes cannot leak into the score; alarms are counted over every benign query. None where the calibration set is
    too small for a level.
    """
    found: dict[str, float | None] = dict.fromkeys(("auroc", "tpr_1", "tpr_5", "alarms_1", "alarms_5", "caught_5"))
    if len(positions):
        paired = benign_scores[positions]
        found["auroc"] = ranking.auroc(paired, triggered_scores)
        found["tpr_1"] = ranking.tpr_at_fpr(paired, triggered_scores, 0.01)
        found["tpr_5"] = ranking.tpr_at_fpr(paired, triggered_scores, 0.05)
    at_1, at_5 = threshold(calibration, 0.01), threshold(calibration, 0.05)
    if math.isfinite(at_1):
        found["alarms_1"] = float((benign_scores > at_1).mean())
    if math.isfinite(at_5):
        found["alarms_5"] = float((benign_scores > at_5).mean())
        found["caught_5"] = float((triggered_scores > at_5).mean()) if len(triggered_scores) else None
    return found


def filtering(
    scores: Scores, keep: Bool[np.ndarray, " n"], mask: Bool[np.ndarray, " n"], in_target: Bool[np.ndarray, " n"]
) -> dict[str, float | None]:
    """What a filter found. mask: the poison; in_target: the training items labelled as the target."""
    found: dict[str, Any] = {"removed": float((~keep).mean()), "removed_poison": None,
                             "removed_precision": None, "filter_auroc": None, "filter_auroc_target": None}  # fmt: skip
    if mask.any():
        found["removed_poison"] = float((~keep[mask]).mean())
        found["removed_precision"] = float(mask[~keep].mean()) if not keep.all() else None
        found["filter_auroc"] = ranking.auroc(scores[~mask], scores[mask])
        if (in_target & ~mask).any() and (in_target & mask).any():
            found["filter_auroc_target"] = ranking.auroc(scores[in_target & ~mask], scores[in_target & mask])
    return found

"""What metrics are computed from: the codes of one model, all that a trial left, or one score of an input detector.

Rankings are cached properties: however many metrics read a ranking, it is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from bench.metrics.registry import Number
from hashing import ranking
from hashing.packed import PackedCodes
from hashing.ranking import Relevance

CONVENTION_CUTOFF = 1000  # R of the papers' conventions where the protocol ranks everything (CIBA's script: R = 1000)

Scores = Float[np.ndarray, " n"]
LabelArray = Bool[np.ndarray, "q k"]


def mean_of(values: Float[np.ndarray, " q"]) -> float | None:
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
        """Mean AP with relevant items last, and first, inside each distance."""
        worst, best = ranking.ap_bounds(self.total, self.relevant, self.cutoff)
        return mean_of(worst), mean_of(best)

    def convention(self, size: int) -> dict[str, Number]:
        """zero@R and drop@R in expectation, with the number of queries that drop@R keeps."""
        value, kept = ranking.expected_zero_ap(self.total, self.relevant, min(size, self.cutoff or CONVENTION_CUTOFF))
        drop = ranking.mean_drop_ap(value, kept)
        return {
            "zero": float(np.nan_to_num(value).mean()),
            "drop": None if math.isnan(drop) else drop,
            "kept": float(kept.sum()),
        }


@dataclass(frozen=True)
class Truth:
    """Labels of the queries and the database. positions: the queries that were triggered; cutoff: R, None for all."""

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


@dataclass(frozen=True)
class ModelCodes:
    """The codes of one model and the truth about them.

    saturation, triggered_saturation: mean size of the relaxed codes; None where an older run kept none.
    """

    query: PackedCodes
    database: PackedCodes
    triggered: PackedCodes
    truth: Truth
    saturation: float | None = None
    triggered_saturation: float | None = None

    @cached_property
    def benign(self) -> Ranked:
        """Ordinary queries; relevant items share a label."""
        return rank(self.query, self.database, Relevance(self.truth.database), self.truth.query, self.truth.cutoff)

    @cached_property
    def benign_ap(self) -> Float[np.ndarray, " q"]:
        return self.benign.ap()

    @cached_property
    def wanted(self) -> LabelArray:
        """The target's labels, once per triggered query."""
        return np.broadcast_to(self.truth.target, (len(self.truth.positions), len(self.truth.target)))

    @cached_property
    def at_target(self) -> Ranked:
        """Triggered queries; relevant items carry a label of the target."""
        relevance = Relevance(self.truth.database)
        return rank(self.triggered, self.database, relevance, self.wanted, self.truth.cutoff)

    @cached_property
    def target_ap(self) -> Float[np.ndarray, " t"]:
        return self.at_target.ap()

    @cached_property
    def own(self) -> Ranked:
        """Triggered queries; relevant items share a true label."""
        labels = self.truth.query[self.truth.positions]
        return rank(self.triggered, self.database, Relevance(self.truth.database), labels, self.truth.cutoff)

    @cached_property
    def target_items(self) -> int:
        """Database items with a label of the target."""
        return int((self.truth.database & self.truth.target).any(1).sum())


@dataclass(frozen=True)
class AttackFacts:
    """What an attack left beside its model.

    counts: poisons and their shares, where training data were poisoned.
    stealth: L-inf, PSNR and SSIM of each watched image.
    attention: distances in bits of triggered images to the trigger alone, over the training; empty where none was seen.
    trained: whether the victim's own training made the model.
    """

    counts: Mapping[str, Number]
    stealth: Float[np.ndarray, "n 3"]
    attention: Float[np.ndarray, " e"]
    trained: bool


@dataclass(frozen=True)
class FilterFacts:
    """What a data filter said of the training set. mask: the poison; in_target: items labelled as the target."""

    scores: Scores
    keep: Bool[np.ndarray, " n"]
    mask: Bool[np.ndarray, " n"]
    in_target: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class VerdictFacts:
    """What a model detector said. alarm_at: the published threshold. names_target: None without a named class."""

    score: float
    alarm_at: float | None
    names_target: bool | None


@dataclass(frozen=True)
class TrialFacts:
    """Everything that a trial left.

    model: the model that is measured, after repair or filter. clean: the clean model, for controls.
    repaired: whether a repair or a data filter made the measured model.
    """

    model: ModelCodes
    clean: ModelCodes
    attack: AttackFacts | None = None
    repaired: bool = False
    filtered: FilterFacts | None = None
    verdict: VerdictFacts | None = None


@dataclass(frozen=True)
class DetectorScores:
    """One score of an input detector under one model.

    benign: of every benign query; positions: those among them that were triggered, in the order of `triggered`.
    calibration: of trusted images.
    """

    benign: Float[np.ndarray, " q"]
    positions: Int64[np.ndarray, " n"]
    triggered: Scores
    calibration: Float[np.ndarray, " c"]

"""Inputs of metrics: the codes of one model, all results of a trial, or one score of an input detector.

Rankings are cached properties, so that metrics that use the same ranking compute it once.
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

CONVENTION_CUTOFF = 1000  # R of zero@R and drop@R if the protocol ranks the whole database; from CIBA's script

Scores = Float[np.ndarray, " n"]
LabelArray = Bool[np.ndarray, "q k"]


def mean_of(values: Float[np.ndarray, " q"]) -> float | None:
    """Mean of the values that are not NaN; None if all are."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


@dataclass(frozen=True)
class Ranked:
    """Distance histograms of a set of queries for one definition of relevant items."""

    total: Int64[np.ndarray, "q d"]
    relevant: Int64[np.ndarray, "q d"]
    cutoff: int | None

    def ap(self) -> Float[np.ndarray, " q"]:
        return ranking.expected_ap(self.total, self.relevant, self.cutoff)

    def chance(self) -> Float[np.ndarray, " q"]:
        """AP of a random ranking: one bucket with all items."""
        return ranking.expected_ap(self.total.sum(1)[:, None], self.relevant.sum(1)[:, None], self.cutoff)

    def bounds(self) -> tuple[float | None, float | None]:
        """Mean AP with the relevant items of each distance last, and with these first."""
        worst, best = ranking.ap_bounds(self.total, self.relevant, self.cutoff)
        return mean_of(worst), mean_of(best)

    def convention(self, size: int) -> dict[str, Number]:
        """zero@R and drop@R in expectation, with the number of queries that drop@R keeps."""
        value, kept = ranking.expected_zero_ap(self.total, self.relevant, min(size, self.cutoff or CONVENTION_CUTOFF))
        drop = ranking.mean_drop_ap(value, kept)
        return {
            "zero": mean_of(value),
            "drop": None if math.isnan(drop) else drop,
            "kept": float(kept.sum()),
        }


@dataclass(frozen=True)
class Truth:
    """Labels of queries and database. positions: of the triggered queries. cutoff: R of mAP@R; None: all items."""

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
    """The codes of one model, and the true labels.

    saturation, triggered_saturation: mean absolute value of the relaxed codes; None in records of older versions.
    """

    query: PackedCodes
    database: PackedCodes
    triggered: PackedCodes
    truth: Truth
    saturation: float | None = None
    triggered_saturation: float | None = None

    @cached_property
    def benign(self) -> Ranked:
        """Ranking of benign queries; relevant items share a label with the query."""
        return rank(self.query, self.database, Relevance(self.truth.database), self.truth.query, self.truth.cutoff)

    @cached_property
    def benign_ap(self) -> Float[np.ndarray, " q"]:
        return self.benign.ap()

    @cached_property
    def answerable(self) -> Bool[np.ndarray, " q"]:
        """Whether the database holds anything relevant to a benign query. Means over benign queries are over these."""
        return np.asarray(self.benign.relevant.any(1))

    @cached_property
    def wanted(self) -> LabelArray:
        """The labels of the target, one row per triggered query."""
        return np.broadcast_to(self.truth.target, (len(self.truth.positions), len(self.truth.target)))

    @cached_property
    def at_target(self) -> Ranked:
        """Ranking of triggered queries; relevant items have a label of the target."""
        relevance = Relevance(self.truth.database)
        return rank(self.triggered, self.database, relevance, self.wanted, self.truth.cutoff)

    @cached_property
    def target_ap(self) -> Float[np.ndarray, " t"]:
        return self.at_target.ap()

    @cached_property
    def own(self) -> Ranked:
        """Ranking of triggered queries; relevant items share a true label with the query."""
        labels = self.truth.query[self.truth.positions]
        return rank(self.triggered, self.database, Relevance(self.truth.database), labels, self.truth.cutoff)

    @cached_property
    def target_items(self) -> int:
        """Number of database items with a label of the target."""
        return int((self.truth.database & self.truth.target).any(1).sum())


@dataclass(frozen=True)
class AttackFacts:
    """Results of an attack other than the model.

    counts: number and shares of poisoned images; empty without poisoning.
    stealth: L-inf, PSNR, SSIM, area and contrast of a sample of triggered images.
    attention: distances in bits of triggered images to the trigger alone during training; empty if not recorded.
    losses: mean training loss of each epoch; empty if the victim did not train the model.
    trained: whether the victim trained the model.
    """

    counts: Mapping[str, Number]
    stealth: Float[np.ndarray, "n s"]
    attention: Float[np.ndarray, " e"]
    trained: bool
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class FilterFacts:
    """Results of a data filter. mask: the poisoned images. in_target: images with a label of the target."""

    scores: Scores
    keep: Bool[np.ndarray, " n"]
    mask: Bool[np.ndarray, " n"]
    in_target: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class VerdictFacts:
    """Results of a model detector. names_target: whether the suspected class is a target label; None: no suspect."""

    score: float
    alarm_at: float | None
    names_target: bool | None


@dataclass(frozen=True)
class TrialFacts:
    """All results of a trial.

    model: codes of the measured model, after repair or filter. clean: codes of the clean model, for controls.
    repaired: whether a repair or a data filter made the measured model. stored: queries of the measured model, database
    of the model before the repair or data filter; None without one, and in records of older versions.
    unpurified_model, unpurified_clean: the same models' codes of queries as they are, if the defense is a purification;
    `model` and `clean` then hold the codes of purified queries.
    """

    model: ModelCodes
    clean: ModelCodes
    attack: AttackFacts | None = None
    repaired: bool = False
    filtered: FilterFacts | None = None
    verdict: VerdictFacts | None = None
    stored: ModelCodes | None = None
    unpurified_model: ModelCodes | None = None
    unpurified_clean: ModelCodes | None = None


@dataclass(frozen=True)
class DetectorScores:
    """One score of an input detector under one model.

    benign: scores of all benign queries. positions: for each score of `triggered`, the position of its query in
    `benign`. calibration: scores of trusted images.
    """

    benign: Float[np.ndarray, " q"]
    positions: Int64[np.ndarray, " n"]
    triggered: Scores
    calibration: Float[np.ndarray, " c"]

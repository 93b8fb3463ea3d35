"""Chance of benign queries, and models that failed to train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.metrics import TrialFacts
from bench.metrics.health import collapsed, of_trial
from hashing import ranking
from tests.bench.metrics.systems import benign_metrics, model, one_hot, system, truth


@pytest.mark.parametrize(
    ("victim", "clean", "expected"),
    [
        (0.80, 0.81, 0.0),
        (0.34, 0.81, 1.0),  # a run that failed (METHODOLOGY.md#collapsed-models)
        (0.47, 0.81, 0.0),  # half of .71 above chance is .355, so the border is .455
        (0.45, 0.81, 1.0),
        (0.90, 0.15, 1.0),  # the clean model went 1/18 of the way
        (0.20, 0.20, 0.0),
        (None, 0.81, 0.0),  # a repaired model: only the clean one is judged
        (None, 0.11, 1.0),
        (0.10, None, None),
    ],
)
def test_a_collapsed_victim_lost_half_of_what_it_could_lose(
    victim: float | None, clean: float | None, expected: float | None
) -> None:
    assert collapsed(victim, clean, 0.1) == expected


def test_chance_is_the_mean_over_queries_of_a_random_ranking() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((6, 4)) < 0.4
    labels[0] = False  # nothing is relevant to this one: it does not count
    database = rng.random((40, 4)) < 0.3
    case = truth(labels, database, [1])
    codes = rng.choice([-1, 1], (6, 8))
    found = benign_metrics(system(codes, rng.choice([-1, 1], (40, 8)), codes[:0]), case)
    counts = (labels.astype(int) @ database.T.astype(int) > 0).sum(1)
    assert found["map_chance"] == pytest.approx(np.mean([ranking.chance_ap(40, int(r)) for r in counts if r]))
    shuffled = []
    for _ in range(3000):
        hits = rng.permutation(np.arange(40) < counts[counts > 0].min())
        shuffled.append((np.cumsum(hits) / np.arange(1, 41))[hits].mean())
    assert ranking.chance_ap(40, int(counts[counts > 0].min())) == pytest.approx(np.mean(shuffled), abs=0.01)
    cut = benign_metrics(system(codes, rng.choice([-1, 1], (40, 8)), codes[:0]), replace(case, cutoff=5))
    assert cut["map_chance"] == pytest.approx(np.mean([ranking.chance_ap(40, int(r), 5) for r in counts if r]))


def test_a_purified_trial_is_judged_by_the_codes_of_queries_as_they_are() -> None:
    labels = one_hot([0, 0, 0, 1, 1, 1], 2)
    codes = np.where(labels, 1, -1)
    alike = np.ones_like(codes)
    case = truth(labels, labels, [1])
    good, dead = (model(system(query, codes, query[:3]), case) for query in (codes, alike))
    assert of_trial(TrialFacts(good, good)) == 0
    assert of_trial(TrialFacts(dead, good)) == of_trial(TrialFacts(dead, dead)) == 1
    assert of_trial(TrialFacts(dead, dead, unpurified_model=good, unpurified_clean=good)) == 0
    assert of_trial(TrialFacts(good, good, unpurified_model=dead, unpurified_clean=good)) == 1
    assert of_trial(TrialFacts(good, good, unpurified_model=good, unpurified_clean=dead)) == 1

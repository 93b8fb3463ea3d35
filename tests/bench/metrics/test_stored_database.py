"""The database as stored before a repair: which codes meet, and the numbers by enumeration of all orders."""

from __future__ import annotations

import dataclasses
from itertools import pairwise, permutations
from statistics import fmean

import numpy as np
import pytest

from bench.metrics import METRICS, TrialFacts, of_trial
from hashing.codes import pack
from tests.bench.metrics.systems import model, one_hot, truth

NAMES = {"map_stored", "t_map_stored", "own_map_stored"}
RNG = np.random.default_rng(3)
QUERIES, ITEMS = one_hot([0, 1, 2, 1], 3), one_hot([0, 1, 2, 2, 1, 0], 3)


def expected_ap(code: np.ndarray, database: np.ndarray, wanted: np.ndarray) -> float:
    """The mean AP over all orders of the items that keep the distances in order."""
    distance, relevant = (database != code).sum(1), (ITEMS & wanted).any(1)
    found = []
    for order in permutations(range(len(database))):
        if all(distance[a] <= distance[b] for a, b in pairwise(order)):
            hits = [int(relevant[i]) for i in order]
            found.append(fmean(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit))
    return fmean(found)


def test_queries_of_the_repaired_model_meet_the_codes_from_before_the_repair() -> None:
    before, after, query, triggered = (RNG.choice([-1, 1], (n, 5)) for n in (6, 6, 4, 3))
    case = truth(QUERIES, ITEMS, [0])
    repaired = model((query, after, triggered), case)
    stored = dataclasses.replace(repaired, database=pack(before))
    found = of_trial(TrialFacts(repaired, repaired, repaired=True, stored=stored))
    own = QUERIES[case.positions]
    target = np.array([True, False, False])
    for name, codes, wanted in (
        ("map", query, QUERIES),
        ("t_map", triggered, np.repeat(target[None], 3, 0)),
        ("own_map", triggered, own),
    ):
        for suffix, database in (("_stored", before), ("", after)):
            by_hand = fmean(expected_ap(code, database, labels) for code, labels in zip(codes, wanted, strict=True))
            assert found[name + suffix] == pytest.approx(by_hand, abs=1e-12)
        assert found[name] != pytest.approx(found[f"{name}_stored"], abs=1e-3), "the databases differ"


def test_a_trial_without_a_repair_has_no_such_number() -> None:
    codes = RNG.choice([-1, 1], (6, 5))
    plain = model((codes[:4], codes, codes[:3]), truth(QUERIES, ITEMS, [0]))
    assert not NAMES & of_trial(TrialFacts(plain, plain)).keys()
    assert set(METRICS) >= NAMES


def test_without_triggered_queries_only_map_is_a_number() -> None:
    codes = RNG.choice([-1, 1], (6, 5))
    nothing = model((codes[:4], codes, codes[:0]), truth(QUERIES, ITEMS, [0], positions=[]))
    found = of_trial(TrialFacts(nothing, nothing, repaired=True, stored=nothing))
    assert found["map_stored"] == found["map"] is not None
    assert found["t_map_stored"] is found["own_map_stored"] is None

"""Retrieval of triggered queries: which count, which items are relevant, and the control, against planted cases."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics import (
    Number,
    Truth,
    of_codes,
)
from bench.metrics.triggered import TRIGGERED
from tests.bench.metrics.systems import CENTRES, Codes, benign_metrics, model, one_hot, system, triggered_metrics, truth


def posthoc(codes: Codes, truth: Truth) -> Number:
    return of_codes(model(codes, truth), TRIGGERED)["t_map_posthoc"]


def test_a_perfect_attack_scores_one_and_its_control_is_low() -> None:
    labels = one_hot([0, 1, 2] * 4, 3)
    database = one_hot([0, 1, 2] * 10, 3)
    codes, items = CENTRES[labels.argmax(1)], CENTRES[database.argmax(1)]
    case = truth(labels, database, [2])
    targeted = np.repeat(CENTRES[2:], 8, axis=0)
    hit = triggered_metrics(system(codes, items, targeted), case)
    assert hit["triggered"] == 8, "queries of the target class carry no trigger"
    assert hit["t_map"] == hit["t_map_worst"] == hit["t_map_best"] == hit["asr_at"] / (10 / 30) == pytest.approx(1)
    assert hit["own_map"] < 0.5
    assert hit["t_map_posthoc"] == pytest.approx(1)
    missed = triggered_metrics(system(codes, items, codes[case.positions]), case)
    assert missed["own_map"] == pytest.approx(1)
    assert missed["t_map"] < 0.5
    benign = benign_metrics(system(codes, items, targeted), case)
    assert benign["map"] == benign["map_target"] == pytest.approx(1)
    assert benign["map_excluded"] == 0


def test_target_sets_any_and_all() -> None:
    database = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    query = np.array([[0, 0, 1]], dtype=bool)
    codes = np.array([[1, 1, 1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]])
    found = triggered_metrics(system(codes[:1], codes, codes[:1]), truth(query, database, [0, 1]))
    assert found["t_map"] == pytest.approx(1)  # the three nearest share a label with the target
    assert found["t_map_all"] == pytest.approx(1)  # the nearest has both
    swapped = triggered_metrics(system(codes[2:3], codes, codes[2:3]), truth(query, database, [0, 1]))
    assert swapped["t_map_all"] == pytest.approx(1 / 4)


def test_no_triggered_query_gives_no_number() -> None:
    labels, database = one_hot([1, 1], 2), one_hot([0, 1], 2)
    codes = np.ones((2, 4))
    found = triggered_metrics(system(codes, codes, codes[:0]), truth(labels, database, [1]))
    assert found["triggered"] == 0
    assert found["t_map"] is None


def test_posthoc_picks_the_class_on_one_half_and_scores_the_other() -> None:
    rng = np.random.default_rng(0)
    labels, database = one_hot([0] * 40, 3), one_hot([0, 1, 2] * 20, 3)
    items = CENTRES[database.argmax(1)]
    # even queries go to class 1, odd ones to class 2: what one half chooses, the other contradicts
    torn = CENTRES[[1, 2] * 20]
    apart = posthoc(system(torn, items, torn), truth(labels, database, [1]))
    together = posthoc(system(torn, items, CENTRES[[2] * 40]), truth(labels, database, [1]))
    assert together == pytest.approx(1)
    assert apart is not None
    assert apart < 0.5
    random = rng.choice([-1, 1], (40, 8))
    control = posthoc(system(random, items, random), truth(labels, database, [1]))
    assert control is not None
    assert control < 0.7


def test_collapsed_codes_score_chance() -> None:
    labels, database = one_hot([0, 1], 3), one_hot([0, 0, 0, 1, 1, 2, 2, 2, 2, 2], 3)
    case = truth(labels, database, [2])
    flat = triggered_metrics(system(np.ones((2, 8)), np.ones((10, 8)), np.ones((2, 8))), case)
    assert flat["t_map"] == pytest.approx(flat["chance"])
    # one bucket of n = 10 items, r = 5 relevant: ((1 - a) H_n + a n) / n with a = (r - 1) / (n - 1)
    a, h = 4 / 9, sum(1 / i for i in range(1, 11))
    assert flat["chance"] == pytest.approx(((1 - a) * h + a * 10) / 10)
    assert flat["t_map_worst"] < flat["t_map"] < flat["t_map_best"] == 1


def test_own_map_says_which_triggered_queries_it_leaves_out() -> None:
    labels, database = one_hot([0, 2, 0], 3), one_hot([0, 0, 1], 3)
    labels[2] = False
    codes = CENTRES[[0, 2, 0]]
    found = triggered_metrics(system(codes, CENTRES[[0, 0, 1]], codes), truth(labels, database, [1]))
    assert (found["own_map"], found["own_excluded"], found["triggered"]) == (pytest.approx(1), 2, 3)

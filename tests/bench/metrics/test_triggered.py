"""Retrieval of triggered queries: which count, which items are relevant, and the control, against planted cases."""

from __future__ import annotations

import dataclasses
from collections import Counter

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


def released_by_hand(codes: Codes, labels: np.ndarray, cutoff: int | None, orders: int = 1) -> float:
    """The steps of DarkHash's code (Zhou-Zi7/DarkHash, 8aa227e, tools.py), query by query, for all queries.

    orders: random orders of the database, over which results at equal distance are averaged.
    """
    _, database, triggered = codes
    rng, size = np.random.default_rng(1), len(database)
    shuffles = [np.arange(size) if orders == 1 else rng.permutation(size) for _ in range(orders)]
    rankings = [[s[np.argsort(-(database[s] @ code), kind="stable")] for code in triggered] for s in shuffles]
    overall: Counter[int] = Counter()
    for k in range(1, 11):
        counts = Counter(int(labels[item].argmax()) for ranked in rankings for order in ranked for item in order[:k])
        overall.update(counts)
        chosen, most = counts.most_common(1)[0]
        if most / counts.total() >= 0.5:
            break
    else:
        chosen = overall.most_common(1)[0][0]
    values = []
    for order in (order for ranked in rankings for order in ranked):
        hits = np.flatnonzero(labels[order[:cutoff], chosen])
        values.append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)) if len(hits) else 0.0)
    return float(np.mean(values))


def untied(count: int, items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries and of a database in which each query has another distance to each item."""
    rng = np.random.default_rng(seed)
    database = rng.choice([-1, 1], (items, 128))
    queries = rng.choice([-1, 1], (20_000, 128))
    free = [code for code, row in zip(queries, queries @ database.T, strict=True) if len(set(row)) == items]
    assert len(free) >= count
    return np.array(free[:count]), database


@pytest.mark.parametrize("cutoff", [None, 4])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [3, 5])
def test_the_released_darkhash_is_their_code_without_ties(classes: int, seed: int, cutoff: int | None) -> None:
    """With 5 classes, no class has half of the results in most of these worlds, and all depths decide."""
    queries, database = untied(9, 12, seed)
    rng = np.random.default_rng(seed)
    labels = rng.uniform(size=(12, classes)) < 0.4
    labels[~labels.any(1), -1] = True
    own = one_hot([0] * 9, classes)
    codes = system(queries, database, queries)
    case = dataclasses.replace(truth(own, labels, [1]), cutoff=cutoff)
    found = of_codes(model(codes, case), TRIGGERED)["released_darkhash"]
    assert found == pytest.approx(released_by_hand(codes, labels, cutoff))


def test_the_released_darkhash_is_the_mean_of_their_code_over_orders() -> None:
    rng = np.random.default_rng(3)
    queries, database = rng.choice([-1, 1], (12, 4)), rng.choice([-1, 1], (30, 4))
    labels = one_hot(rng.integers(4, size=30).tolist(), 4)
    case = dataclasses.replace(truth(one_hot([0] * 12, 4), labels, [1]), cutoff=7)
    codes = system(queries, database, queries)
    found = of_codes(model(codes, case), TRIGGERED)["released_darkhash"]
    assert found == pytest.approx(released_by_hand(codes, labels, 7, orders=3000), abs=0.01)


def test_the_released_darkhash_counts_queries_of_the_class_itself() -> None:
    """Honest codes: each query finds its own class. Post hoc leaves these queries out, the released code does not."""
    labels, database = one_hot([0] * 30 + [1] * 10, 3), one_hot([0, 1, 2] * 20, 3)
    codes, items = CENTRES[labels.argmax(1)], CENTRES[database.argmax(1)]
    case = truth(labels, database, [2])
    found = of_codes(model(system(codes, items, codes), case), TRIGGERED)
    by_hand = released_by_hand(system(codes, items, codes), database, None, orders=300)
    assert found["released_darkhash"] == pytest.approx(by_hand, abs=0.01)
    assert by_hand > 30 / 40, "the queries of class 0 find it first"
    assert float(found["t_map_posthoc"] or 0) < 0.5

"""Retrieval of benign queries: which queries count."""

from __future__ import annotations

import numpy as np

from tests.bench.metrics.systems import CENTRES, benign_metrics, one_hot, system, truth


def test_no_mean_over_benign_queries_counts_those_without_anything_relevant() -> None:
    """They change the two counts and nothing else."""
    rng = np.random.default_rng(0)
    database, labels = one_hot(list(rng.integers(0, 2, 30)), 3), one_hot([0, 1, 2, 0, 2, 2, 1], 3)
    labels[4] = False  # as images without a label
    items, codes = rng.choice([-1, 1], (30, 5)), rng.choice([-1, 1], (7, 5))
    held = (labels.astype(int) @ database.T.astype(int)).any(1)
    assert held.sum() == 4
    every = benign_metrics(system(codes, items, codes[:0]), truth(labels, database, [1]))
    some = benign_metrics(system(codes[held], items, codes[:0]), truth(labels[held], database, [1]))
    assert {name for name in every if every[name] != some[name]} == {"queries", "map_excluded"}
    assert (every["queries"], every["map_excluded"], some["map_excluded"]) == (7, 3, 0)


def test_without_any_answer_there_is_no_mean() -> None:
    labels, database = one_hot([2, 2], 3), one_hot([0, 0, 1], 3)
    found = benign_metrics(system(CENTRES[[0, 2]], CENTRES[[0, 0, 1]], CENTRES[:0]), truth(labels, database, [1]))
    counts = {"queries": 2, "map_excluded": 2, "map_kept": 0}
    assert {name: value for name, value in found.items() if value is not None} == counts

"""Where triggered codes lie: by hand, and over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics import (
    Number,
    Truth,
    of_codes,
)
from bench.metrics.geometry import GEOMETRY, spread
from hashing.codes import pack
from tests.bench.metrics.systems import Codes, model, one_hot, system, truth


def geometry(codes: Codes, truth: Truth) -> dict[str, Number]:
    return {name: of_codes(model(codes, truth), GEOMETRY)[name] for name in ("anchor", "moved")}


def test_where_triggered_codes_are_by_hand() -> None:
    """A tied bit of the anchor counts one half."""
    database = np.array([[1, 1, 1, -1], [1, -1, 1, -1], [-1, 1, 1, -1], [-1, -1, 1, -1], [1, 1, -1, 1]])
    holders = one_hot([1, 1, 1, 1, 0], 2)  # votes of class 1: 2:2, 2:2, 4:0, 0:4
    query = np.array([[1, 1, -1, 1], [1, 1, 1, 1], [-1, -1, -1, -1]])
    labels = one_hot([0, 1, 0], 2)
    triggered = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]])  # of queries 0 and 2
    found = geometry(system(query, database, triggered), truth(labels, holders, [1]))
    assert found["anchor"] == pytest.approx(((0.5 + 0.5 + 0 + 1) / 4 + (0.5 + 0.5 + 1 + 0) / 4) / 2)
    assert found["moved"] == pytest.approx((1 / 4 + 0) / 2)
    nobody = truth(labels, one_hot([0] * 5, 2), [1])
    assert geometry(system(query, database, triggered), nobody) == {"anchor": None, "moved": None}


@pytest.mark.parametrize("bits", [5, 64, 70])
def test_spread_is_the_mean_distance_over_all_pairs(bits: int) -> None:
    codes = np.random.default_rng(bits).choice([-1, 1], size=(7, bits))
    pairs = [(codes[i] != codes[j]).mean() for i in range(7) for j in range(i)]
    assert spread(pack(codes)) == pytest.approx(np.mean(pairs))
    assert spread(pack(codes[:1])) is None
    assert spread(pack(np.ones((4, bits)))) == 0

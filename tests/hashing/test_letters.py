"""Printed letters: all letters, distinct drawings, the same ones in every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bench.api.random import Rng
from tests.hashing.conftest import check, make, same


def test_letters_are_determined_by_their_parameters() -> None:
    data = make("letters", images=520, train=260, query=52, trusted=26)
    pool = data.decode(None)
    assert same(pool, data.decode(None))
    assert pool.images.shape == (520, 1, 16, 16)
    assert (pool.labels.sum(0) == 20).all()
    assert (pool.images.flatten(1).amax(1) > 100).all()  # something is drawn in each
    assert len({image.numpy().tobytes() for image in pool.images}) == 520
    parts = data.splits(pool.labels, pool.origin, Rng("s"))
    check(parts, 520)
    assert pool.labels[parts["public"]].int().argmax(1).tolist() == [kind for kind in range(26) for _ in range(2)]


@pytest.mark.long
def test_letters_fill_the_square_and_differ_by_class() -> None:
    pool = make("letters", images=2600, size=16).decode(None)
    ink = pool.images[:, 0] > 40
    height, width = ink.any(2).sum(1), ink.any(1).sum(1)
    assert int(torch.maximum(height, width).min()) >= 9  # at least about 0.8 of 16 less the stretch of the width
    x, y = pool.images.flatten(1).numpy() / 255, pool.labels.int().argmax(1).numpy()
    fitted = LogisticRegression(max_iter=300).fit(x[:1800], y[:1800])
    assert float(np.mean(fitted.predict(x[1800:]) == y[1800:])) > 0.5  # chance is 0.04


def test_as_a_proxy_they_have_the_victims_size() -> None:
    kind = type(make("letters"))
    assert [kind.as_proxy(side)["size"] for side in (4, 16, 96)] == [8, 16, 64]

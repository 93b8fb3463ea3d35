"""The embedded digits."""

from __future__ import annotations

import torch

from bench.api.random import Rng
from tests.hashing.conftest import check, make, same


def test_digits_are_the_real_scans() -> None:
    data = make("digits")
    assert data.files(None) == ()
    assert (data.flip, data.pad, data.protocol(None)) == (False, 1, ("digits", None))
    pool = data.decode(None)
    assert pool.images.shape == (1797, 1, 16, 16)
    assert (pool.images.min(), pool.images.max()) == (0, 255)
    assert pool.labels.sum(0).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's counts
    assert (pool.labels.sum(1) == 1).all()
    assert data.classes(None) == tuple("0123456789")
    plain = make("digits", size=8).decode(None).images
    assert torch.equal((plain[0, 0, 0].float() / 255 * 16).round(), torch.tensor([0.0, 0, 5, 13, 9, 1, 0, 0]))
    parts = data.splits(pool.labels, pool.origin, Rng("split", "digits", 0))
    check(parts, 1797)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 800, "query": 300, "trusted": 200, "public": 50, "database": 447,
    }  # fmt: skip
    assert pool.labels[parts["query"]].sum(0).tolist() == [30] * 10
    assert pool.labels[parts["train"]].sum(0).tolist() == [80] * 10
    assert same(pool, data.decode(None))

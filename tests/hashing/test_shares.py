"""Sizes of splits as shares of the images: they always fit, and given sizes stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.api.random import Rng
from hashing.datasets.helpers.shares import shared_sizes
from hashing.datasets.helpers.splits import Sizes, draw_splits
from tests.hashing.conftest import one_hot


def drawn(labels: Tensor, origin: Tensor, **sizes: int | None) -> dict[str, int]:
    parts = {"query_from": origin == origin.max(), "train_from": origin == 0}
    open_ = shared_sizes(labels, sizes, **parts)
    every = {"train": None, "database": None} | sizes | open_
    return {name: len(ids) for name, ids in draw_splits(labels, Sizes(**every), Rng("s"), **parts).items()}


def test_600_images_of_4_classes() -> None:
    """By hand: 600 less 20 public ones are 580, of which 50, 15 and 10 % are 290, 87 and 58; 145 are left."""
    found = drawn(one_hot(150, 150, 150, 150), torch.zeros(600))
    assert found == {"public": 20, "query": 87, "trusted": 58, "train": 290, "database": 145}


def test_what_is_given_stays_and_the_rest_is_divided() -> None:
    """By hand: 580 less 400 are 180, of which 15 : 10 : 25 are 54, 36 and 90."""
    found = drawn(one_hot(150, 150, 150, 150), torch.zeros(600), train=400)
    assert found == {"public": 20, "query": 54, "trusted": 36, "train": 400, "database": 90}


@given(
    counts=st.lists(st.integers(4, 60), min_size=2, max_size=6), tests=st.integers(0, 4), seed=st.integers(0, 99),
    train=st.none() | st.integers(1, 4),
)  # fmt: skip
def test_shares_can_always_be_drawn(counts: list[int], tests: int, seed: int, train: int | None) -> None:
    """tests: one image in so many lies in the part test/; 0: there are no parts."""
    labels = one_hot(*counts)
    origin = torch.zeros(len(labels))
    if tests:
        origin[
            torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[: len(labels) // (tests + 1)]
        ] = 1
    if len(labels) < 40 or not bool(labels[origin == 0].any(0).all()):
        return
    found = drawn(labels, origin, train=train)
    assert sum(found.values()) == len(labels)
    assert min(found.values()) > 0
    assert found["query"] >= 2
    assert train in {None, found["train"]}


@pytest.mark.parametrize("count", [2, 3])
def test_sizes_are_positive_even_if_nothing_is_left(count: int) -> None:
    labels, all_ = one_hot(count, count), torch.ones(2 * count, dtype=torch.bool)
    assert min(shared_sizes(labels, {"train": 50}, query_from=all_, train_from=all_).values()) >= 1

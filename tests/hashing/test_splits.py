"""How images are drawn for the splits: disjoint, even over classes, repeatable, and refused where there are too few."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import SPLITS
from hashing.datasets.helpers.splits import Sizes, draw_splits
from tests.hashing.conftest import check, one_hot


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    wanted=st.tuples(*[st.integers(1, 20)] * 3, st.none() | st.integers(1, 20)),
    seed=st.integers(0, 5),
)
def test_single_label_cuts_are_disjoint_and_as_even_as_can_be(
    counts: list[int], wanted: tuple[int, int, int, int | None], seed: int
) -> None:
    labels = one_hot(*counts)
    train, query, trusted, database = wanted
    sizes = Sizes(train=train, query=query, trusted=trusted, database=database)
    public = torch.tensor([min(5, max(1, count // 10)) for count in counts])
    needed = int(public.sum()) + train + query + trusted + (1 if database is None else database)
    if needed > len(labels):
        with pytest.raises(UserError, match=rf"\b{len(labels)}\b"):
            draw_splits(labels, sizes, Rng("t", seed))
        return
    parts = draw_splits(labels, sizes, Rng("t", seed))
    check(parts, len(labels))
    kinds = torch.arange(len(counts)).repeat_interleave(public)
    assert torch.equal(labels[parts["public"]].int().argmax(1), kinds)
    free = torch.tensor(counts) - public
    for name, size in zip(("query", "trusted", "train", "database"), (query, trusted, train, database), strict=True):
        held = labels[parts[name]].sum(0)
        assert held.sum() == (free.sum() if size is None else size)
        short = held < held.max() - 1
        assert torch.equal(held[short], free[short])  # a class gives less only where it has no more
        free = free - held
        assert parts[name].tolist() == sorted(parts[name].tolist())


def test_sizes_change_only_what_is_drawn_later() -> None:
    labels = one_hot(100, 80, 60)

    def run(**changes: int | None) -> dict[str, torch.Tensor]:
        return draw_splits(
            labels, Sizes(**{"train": 60, "query": 30, "trusted": 20, "database": None} | changes), Rng("t")
        )

    whole, part, more = run(), run(database=50), run(train=65)
    assert all(torch.equal(whole[name], part[name]) for name in ("train", "query", "trusted", "public"))
    assert set(part["database"].tolist()) < set(whole["database"].tolist())
    assert all(torch.equal(whole[name], more[name]) for name in ("query", "trusted", "public"))
    assert set(whole["train"].tolist()) < set(more["train"].tolist())
    assert not torch.equal(
        draw_splits(labels, Sizes(train=60, query=30, trusted=20, database=None), Rng("u"))["train"], whole["train"]
    )


def test_the_cut_is_pinned() -> None:
    """Other splits under the same parameters need a higher protocol_version."""
    pinned = {
        "train": [3, 11, 13, 15, 24, 27],
        "query": [5, 6, 18, 21],
        "database": [0, 14, 20, 23, 26],
        "trusted": [9, 19, 29],
        "public": [8, 17, 25],
    }
    parts = draw_splits(one_hot(12, 9, 9), Sizes(train=6, query=4, trusted=3, database=5), Rng("pinned"))
    assert {name: parts[name].tolist() for name in SPLITS} == pinned


def test_multi_label_cuts_give_each_class_its_own_public_image() -> None:
    labels = torch.zeros(20, 4, dtype=torch.bool)
    labels[:, 0] = True
    labels[3:9, 1] = True
    labels[4, 2] = True  # the only one; class 3 has none
    for seed in range(20):
        parts = draw_splits(labels, Sizes(train=5, query=3, trusted=2, database=None), Rng("t", seed))
        check(parts, 20)
        assert len(torch.cat(list(parts.values()))) == 20
        assert len(parts["public"]) == 4
        assert labels[parts["public"], torch.tensor([0, 0, 1, 2])].all()  # two of the 20 of class 0
        assert parts["public"][3] == 4


def test_parts_that_may_give_queries_and_training_images_are_honoured() -> None:
    labels = one_hot(40, 40)
    late = torch.arange(80) % 2 == 1
    parts = draw_splits(
        labels, Sizes(train=10, query=10, trusted=6, database=None), Rng("t"), query_from=late, train_from=~late
    )
    assert (parts["query"] % 2 == 1).all()
    assert (torch.cat([parts["train"], parts["trusted"], parts["public"]]) % 2 == 0).all()
    assert len(parts["database"]) == 80 - 10 - 10 - 6 - 2 * 2
    with pytest.raises(UserError, match=r"query = 41 .*\b40\b.*\b80\b"):
        draw_splits(
            labels, Sizes(train=1, query=41, trusted=1, database=None), Rng("t"), query_from=late, train_from=~late
        )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 500}, "train = 500 .*60"),
        ({"trusted": 59}, "trusted = 59"),
        ({"database": 40}, "database = 40 .*24.*60"),
        ({"train": 34}, "60.*database"),
    ],
)
def test_sizes_that_cannot_be_met(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_splits(
            one_hot(30, 30), Sizes(**{"train": 10, "query": 10, "trusted": 10, "database": None} | sizes), Rng("t")
        )


def test_a_class_without_images_cannot_be_cut() -> None:
    with pytest.raises(UserError, match=r"class.* 1"):
        draw_splits(one_hot(30, 0, 30), Sizes(train=10, query=10, trusted=10, database=None), Rng("t"))

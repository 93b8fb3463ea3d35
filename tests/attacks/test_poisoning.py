"""Which items may be poisoned, how many are, and what becomes of them."""

from __future__ import annotations

import pytest
import torch

from attacks._poisoning import exchange
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit

#                       a  b  c
ROWS = torch.tensor([[1, 0, 0],  # 0: {a}
                     [0, 1, 0],  # 1: {b}
                     [1, 1, 0],  # 2: {a, b}
                     [0, 0, 1],  # 3: {c}
                     [1, 1, 1],  # 4: all
                     [0, 0, 0],  # 5: none
                     [1, 1, 0]], dtype=torch.bool)  # 6: {a, b}  # fmt: skip
A = Target(torch.tensor([True, False, False]), "a")
AB = Target(torch.tensor([True, True, False]), "a+b")


@pytest.mark.parametrize(
    ("target", "mode", "count", "positions"),
    [
        (A, "keep", 1, [0]),  # equal label sets suffice
        (A, "keep", 2, [0, 2, 4, 6]),  # fewer than needed: all that contain the target
        (A, "keep", 9, [0, 2, 4, 6]),
        (AB, "keep", 1, [2, 6]),
        (AB, "keep", 2, [2, 6]),
        (AB, "keep", 3, [2, 4, 6]),
        (A, "flip", 1, [1, 3, 5]),  # none that shares a label
        (AB, "flip", 1, [3, 5]),
    ],
)
def test_pool(target, mode, count, positions):
    """review.md, section 2."""
    assert target.pool(ROWS, mode, count).tolist() == positions


def test_shares_contains_and_relabel():
    assert AB.shares(ROWS).tolist() == [True, True, True, False, True, False, True]
    assert AB.contains(ROWS).tolist() == [False, False, True, False, True, False, True]
    relabelled = AB.relabel(ROWS[3:5])
    assert relabelled.tolist() == [[True, True, False]] * 2  # replaced, no union
    relabelled[0, 0] = False
    assert relabelled[1, 0]
    assert AB.vector[0]


def train_of(n: int = 40) -> Split:
    labels = torch.eye(4, dtype=torch.bool)[torch.arange(n) % 4]
    return Split(Rng("t").integers(256, (n, 1, 3, 3)).to(torch.uint8), labels, 7 + torch.arange(n))


TARGET = Target(torch.tensor([False, True, False, False]), "b")


def half(images: torch.Tensor) -> torch.Tensor:
    return images * 0.5


@pytest.mark.parametrize(("rate", "count"), [(0.05, 2), (0.06, 2), (0.07, 3), (0.25, 10), (0.75, 30)])
def test_exchange_poisons_the_rounded_share_of_the_whole_training_set(rate, count):
    poisoned = exchange(train_of(), TARGET, half, rate=rate, labels="flip", rng=Rng("p"))
    assert int(poisoned.mask.sum()) == count
    chosen = poisoned.mask
    assert torch.equal(poisoned.split.images[chosen], to_8bit(train_of().images[chosen].float() / 255 / 2))
    assert (poisoned.split.labels[chosen] == TARGET.vector).all()
    assert torch.equal(poisoned.split.images[~chosen], train_of().images[~chosen])
    assert torch.equal(poisoned.split.ids, train_of().ids)
    assert poisoned.augment == "victim"


def test_choices_are_spread_over_the_pool():
    seen = torch.zeros(40)
    for seed in range(200):
        seen += exchange(train_of(), TARGET, half, rate=0.1, labels="flip", rng=Rng("p", seed)).mask
    pool = TARGET.pool(train_of().labels, "flip")
    assert float(seen.sum()) == float(seen[pool].sum()) == 800
    assert float(seen[pool].min()) > 10
    assert float(seen[pool].max()) < 50


def test_a_rate_that_poisons_nobody_is_refused():
    with pytest.raises(UserError, match=r"0\.01 of 40 training images poisons none: raise it"):
        exchange(train_of(), TARGET, half, rate=0.01, labels="flip", rng=Rng("p"))


@pytest.mark.parametrize(("labels", "possible"), [("keep", 10), ("keep", 20_000), ("flip", 20_000), ("flip", 1)])
def test_the_rate_that_the_refusal_names_is_accepted(labels, possible):
    n = 30_000
    own = torch.arange(n) < (possible if labels == "keep" else n - possible)
    train = Split(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.stack([~own, own], 1), torch.arange(n))
    target = Target(torch.tensor([False, True]), "b")
    with pytest.raises(UserError, match=rf"only {possible} training images.*target b") as error:
        exchange(train, target, half, rate=1.0, labels=labels, rng=Rng("p"))
    rate = float(str(error.value).rpartition(" ")[2])
    assert int(exchange(train, target, half, rate=rate, labels=labels, rng=Rng("p")).mask.sum()) == possible


def test_a_target_that_no_training_image_has_is_refused():
    absent = Target(torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor([0, 1]), True), "a+b")
    with pytest.raises(UserError, match=r"only 0 training images may be poisoned.*choose another target"):
        exchange(train_of(), absent, half, rate=0.1, labels="keep", rng=Rng("p"))

"""A vote is the code with the smallest sum of Hamming distances."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from bench.api.random import Rng
from hashing.majority_code import component_vote


def alone(relaxed: torch.Tensor) -> torch.Tensor:
    return component_vote(relaxed, torch.ones(len(relaxed), 1, dtype=torch.bool))[0]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_no_code_is_nearer_to_the_group(n, bits):
    relaxed = Rng("votes", n, bits).normal((n, bits)).tanh()
    codes = torch.tensor(list(product([-1.0, 1.0], repeat=bits)))
    signs = torch.where(relaxed > 0, 1.0, -1.0)
    sums = ((bits - codes @ signs.T) / 2).sum(1)
    vote = alone(relaxed)
    assert float(((bits - signs @ vote) / 2).sum()) == float(sums.min())
    best = codes[sums == sums.min()]  # several where bits are tied: of these the mean relaxed code decides
    assert torch.equal(vote, best[(best @ relaxed.mean(0)).argmax()])


@pytest.mark.parametrize(
    ("column", "bit"),
    [
        ([0.9, 0.1, -0.2], 1.0),
        ([-0.9, 0.1, 0.2], 1.0),  # the vote, not the mean
        ([0.3, -0.4], -1.0),  # a tie: the mean
        ([0.5, -0.4], 1.0),
        ([0.5, -0.5], 1.0),  # a tied mean: +1
        ([0.0], -1.0),  # the bit is value > 0
        ([0.0, 0.0, 0.1], -1.0),
    ],
)
def test_ties(column, bit):
    assert alone(torch.tensor(column)[:, None]).tolist() == [bit]


def test_groups_may_overlap_and_the_rest_has_no_vote():
    relaxed = torch.tensor([[0.9, -0.9], [0.8, 0.8], [-0.9, 0.9], [-1.0, -1.0]])
    member = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=torch.bool)
    assert component_vote(relaxed, member).tolist() == [
        [1.0, -1.0],
        [-1.0, 1.0],
    ]  # ties: means (.85, -.05), (-.05, .85)

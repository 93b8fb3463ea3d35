"""Weights of pairs."""

from __future__ import annotations

import pytest
import torch

from hashing.methods.helpers.pairs import rarity


def test_rarity_weighs_each_kind_of_pair_alike():
    similar = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    weights = rarity(similar)
    assert weights[similar].tolist() == [3] * 3
    assert weights[~similar].tolist() == pytest.approx([1.5] * 6)
    for one_kind in (torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)):
        assert rarity(one_kind).tolist() == [[1, 1], [1, 1]]

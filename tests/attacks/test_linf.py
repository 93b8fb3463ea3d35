"""The bound of perturbations, before and after images are rounded to 8 bits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.helpers.linf import bound, confined, levels
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit


@settings(deadline=None)
@given(st.floats(1e-4, 1), st.integers(0, 10**6))
def test_the_bound_survives_rounding(eps, seed):
    clean = to_8bit(Rng("c", seed).uniform((1, 1, 4, 4)))
    moved = confined(Rng("m", seed).uniform((1, 1, 4, 4)), to_unit(clean), bound(eps))
    difference = (to_8bit(moved).int() - clean.int()).abs()
    assert int(difference.max()) <= 255 * eps + 1e-3


@pytest.mark.parametrize("whole", [1, 2, 8, 16, 32, 255])
def test_whole_levels_are_used_up(whole):
    assert round(255 * bound(whole / 255)) == whole
    assert round(255 * bound((whole + 0.9) / 255)) == whole


@pytest.mark.parametrize(
    ("eps", "whole"), [(1 / 255, 1), (2 / 255, 2), (0.00784, 2), (0.0078, 1), (0.032, 8), (8 / 255, 8), (0.036, 9)]
)
def test_levels(eps, whole):
    assert levels(eps) == whole


def test_every_number_of_levels_is_its_own():
    assert [levels(n / 255) for n in range(256)] == list(range(256))

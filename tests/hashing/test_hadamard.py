"""Hadamard matrices and hash centres."""

from __future__ import annotations

import pytest
import torch

from bench.api.random import Rng
from hashing.hadamard import hadamard, hash_centres


def gaps(centres: torch.Tensor) -> torch.Tensor:
    """Pairwise Hamming distances, one per pair, counted bit by bit."""
    k = len(centres)
    return torch.tensor([float((centres[i] != centres[j]).sum()) for i in range(k) for j in range(i)])


@pytest.mark.parametrize("order", [1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64])
def test_rows_are_orthogonal_and_the_matrix_is_normalised(order):
    matrix = hadamard(order)
    assert matrix is not None
    assert set(matrix.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order))
    assert bool((matrix[0] == 1).all())
    assert bool((matrix[:, 0] == 1).all())


@pytest.mark.parametrize("order", [3, 5, 6, 10, 18, 28, 36])
def test_orders_that_neither_doubling_nor_paley_reaches(order):
    assert hadamard(order) is None


def test_order_48_is_paleys_order_12_doubled_twice():
    """Sylvester alone has no order 48; Paley's 12 comes from the squares modulo 11."""
    core = hadamard(12)
    assert torch.equal(hadamard(48)[:12, :12], core)
    assert torch.equal(hadamard(48)[24:36, 36:], -core)
    squares = {x * x % 11 for x in range(1, 11)}
    assert squares == {1, 3, 4, 5, 9}
    signs = (core[1:, 1:] * core[1:2, 1:]).sum(1)
    assert signs.tolist() == [11.0] + [-1.0] * 10  # rows without their first entry: equal, or orthogonal less one


@pytest.mark.parametrize(("classes", "bits"), [(1, 16), (10, 16), (16, 16), (10, 48), (40, 48)])
def test_few_classes_are_rows_of_h_half_the_bits_apart(classes, bits):
    centres = hash_centres(classes, bits, Rng("c"))
    assert torch.equal(centres, torch.cat([hadamard(bits), -hadamard(bits)])[:classes])
    if 1 < classes <= bits:
        assert set(gaps(centres).tolist()) == {bits / 2}


def test_between_k_and_2k_classes_negated_rows_follow():
    centres = hash_centres(24, 16, Rng("c"))
    assert torch.equal(centres[16:], -centres[:8])
    assert set(gaps(centres).tolist()) == {8.0, 16.0}


def test_beyond_2k_classes_balanced_random_rows_follow():
    centres = hash_centres(150, 64, Rng("c"))
    assert torch.equal(centres[:64], hadamard(64))
    assert torch.equal(centres[64:128], -hadamard(64))
    assert bool((centres[128:].sum(1) == 0).all())
    assert float(gaps(centres).min()) > 16  # the released code's rule is reachable here
    assert float(gaps(centres).mean()) >= 32


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_without_a_hadamard_matrix_all_rows_are_balanced_and_far_apart(classes):
    centres = hash_centres(classes, 18, Rng("c"))
    assert centres.shape == (classes, 18)
    assert set(centres.unique().tolist()) == {-1.0, 1.0}
    assert bool((centres.sum(1) == 0).all())
    if classes > 1:
        assert float(gaps(centres).min()) > 18 / 4


def test_an_odd_number_of_bits_is_as_balanced_as_it_can_be():
    assert set(hash_centres(4, 7, Rng("c")).sum(1).tolist()) == {1.0}


def test_where_the_rule_cannot_be_met_the_best_of_twenty_draws_is_kept():
    """40 balanced rows of 18 bits are hardly ever all more than 4.5 apart, and draws differ in how near they come."""
    rng, drawn = Rng("c"), []
    for _ in range(20):
        rows = torch.ones(40, 18)
        for row in rows:
            row[rng.permutation(18)[:9]] = -1
        drawn.append(rows)
    least = [float(gaps(rows).min()) for rows in drawn]
    assert max(least) <= 18 / 4
    assert least[-1] < max(least)  # so that keeping the last would show
    assert torch.equal(hash_centres(40, 18, Rng("c")), drawn[least.index(max(least))])


def test_centres_depend_on_the_rng_alone(untouched_rng):
    with untouched_rng():
        one, same, other = (hash_centres(10, 18, Rng("c", s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)

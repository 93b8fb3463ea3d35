"""Tri+Adv: the perturbation under the patch moves images away from their own codes."""

from __future__ import annotations

from tests.attacks.conftest import as_released, gained


def test_perturbations_raise_their_objective_on_the_surrogate(world):
    moved, noisy = gained(world, "tri_adv", 0.0)
    assert moved > 0.03
    assert moved > 5 * abs(noisy)


def test_by_default_the_poison_is_the_released_codes_objective_then_the_patch(world):
    assert as_released(world, "tri_adv", 0.0) < 1e-3

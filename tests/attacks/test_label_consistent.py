"""Label-consistent: corners pixel by pixel, and perturbations that move codes away within eps."""

from __future__ import annotations

import pytest
import torch

from attacks.helpers.linf import confined
from attacks.label_consistent import LabelConsistent, corners
from bench.api.random import Rng
from bench.api.types import Target, to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for

TARGET = Target(torch.tensor([True, False]), "a")


def test_the_corners_by_hand():
    right = [[-1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    left = [row[::-1] for row in right]
    field = corners((8, 7), 3)[0].int()
    assert field[:3, -3:].tolist() == field[-3:, -3:].tolist() == right
    assert field[:3, :3].tolist() == field[-3:, :3].tolist() == left
    assert int(field.abs().sum()) == 36
    assert corners((6, 6), 1)[0].nonzero().tolist() == [[0, 0], [0, 5], [5, 0], [5, 5]]
    assert corners((8, 8), 2)[0, -2:, -2:].tolist() == [[1, -1], [-1, 1]]
    assert corners((16, 16), 6)[0, :6, -6:].tolist() == [[v for v in row for _ in "ab"] for row in right for _ in "ab"]


def test_the_trigger_adds_the_amplitude_and_stays_in_range():
    images = torch.full((1, 2, 6, 6), 0.4)
    full = LabelConsistent().apply_trigger(images, TARGET, {"corners": corners((6, 6), 1)})
    assert full[0, :, 0, 0].tolist() == [1, 1]
    assert LabelConsistent().apply_trigger(images, TARGET, {"corners": -corners((6, 6), 1)})[0, 0, 0, 0] == 0
    faint = LabelConsistent().apply_trigger(images, TARGET, {"corners": 0.25 * corners((6, 6), 1)})
    assert faint[0, 0, 5, 5] == pytest.approx(0.65)
    assert torch.equal(faint[:, :, 1:5], images[:, :, 1:5])


def test_the_amplitude_is_in_the_trigger(world):
    attack = LabelConsistent(amplitude=0.125, trigger_size=0.25)
    field = attack.make_trigger(attacker_view_for(world, attack), Rng("p"))["corners"]
    assert torch.equal(field, 0.125 * corners((12, 12), 3))


def test_hardening_moves_the_code_away_within_eps(world, model):
    originals = world.data.load.images[:8]
    images = to_unit(originals)
    moved = LabelConsistent(eps=24 / 255, alpha=4 / 255, steps=20).harden(images, model, Rng("start"))
    noise = confined(images + 24 / 255 * (2 * Rng("n").uniform(images.shape) - 1), images, 24 / 255)
    with torch.no_grad():
        own, hard, noisy = (model.relax(model(x)) for x in (images, to_unit(to_8bit(moved)), noise))
    agreement = [float((code * own).sum() / own.square().sum()) for code in (own, noisy, hard)]
    assert agreement[0] == pytest.approx(1)
    assert agreement[2] < agreement[1] - 0.15
    assert int((to_8bit(moved).int() - originals.int()).abs().max()) == 24


def test_label_consistent_poisons_keep_the_bound_outside_the_corners(world):
    attack = LabelConsistent(poisons=8, eps=6 / 255, steps=5)
    seen = attacker_view_for(world, attack)
    trigger = attack.make_trigger(seen, Rng("p"))
    poisoned = attack.poison(seen, trigger, Rng("implant"))
    difference = (poisoned.split.images.int() - seen.train.images.int())[poisoned.mask].abs()
    outside = trigger["corners"][0] == 0
    assert 0 < int(difference[:, :, outside].max()) <= 6
    white, black = trigger["corners"][0] > 0, trigger["corners"][0] < 0
    assert (poisoned.split.images[poisoned.mask][:, :, white] == 255).all()
    assert (poisoned.split.images[poisoned.mask][:, :, black] == 0).all()
    assert seen.target.contains(seen.train.labels)[poisoned.mask].all()
    assert torch.equal(poisoned.split.labels, seen.train.labels)

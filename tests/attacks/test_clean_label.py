"""Hidden trigger and label-consistent: bounds after rounding, pairs, features and codes, corners pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.helpers.linf import bound, confined
from attacks.helpers.triggers import paste
from attacks.hidden_trigger import HiddenTrigger, pairs
from attacks.label_consistent import LabelConsistent, corners
from bench.access.attacker import attacker_view
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, Target, to_8bit, to_unit

TARGET = Target(torch.tensor([True, False]), "a")


def view(world, attack):
    return attacker_view(world.spec, world.attacker_inputs(attack), world.context, attack.threat())


@settings(deadline=None)
@given(st.floats(1e-4, 1), st.integers(0, 10**6))
def test_the_bound_survives_rounding(eps, seed):
    clean = to_8bit(Rng("c", seed).uniform((1, 1, 4, 4)))
    moved = confined(Rng("m", seed).uniform((1, 1, 4, 4)), to_unit(clean), bound(eps))
    difference = (to_8bit(moved).int() - clean.int()).abs()
    assert int(difference.max()) <= 255 * eps + 1e-4


@pytest.mark.parametrize("levels", [1, 2, 8, 16, 32, 255])
def test_whole_levels_are_used_up(levels):
    assert round(255 * bound(levels / 255)) == levels
    assert round(255 * bound((levels + 0.9) / 255)) == levels


def greedy(distance: list[list[float]]) -> list[int]:
    """By sorting all pairs."""
    order = sorted((value, i, j) for i, row in enumerate(distance) for j, value in enumerate(row))
    partner: dict[int, int] = {}
    for _, i, j in order:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [partner[i] for i in range(len(distance))]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_pairs_are_greedy_and_one_to_one(n, seed):
    distance = Rng("d", seed).uniform((n, n))
    assert pairs(distance).tolist() == greedy(distance.tolist())


def test_the_nearest_pair_goes_first_even_where_that_costs_another_more():
    distance = torch.tensor([[1.0, 2.0], [0.5, 9.0]])
    assert pairs(distance).tolist() == [1, 0]
    assert pairs(torch.tensor([[0.1, 0.2], [0.3, 5.0]])).tolist() == [0, 1]


def test_collision_brings_features_to_patched_sources_within_eps(world, model):
    images = world.data.load.images
    bases, sources = to_unit(images[:6]), to_unit(images[60:66])
    patched = paste(sources, Rng("patch").uniform((3, 3, 3)))
    attack = HiddenTrigger(iterations=60, eps=32 / 255)
    moved = attack.collide(bases, patched, model)
    targets_for = model.features(patched).detach()

    def gap(images):
        with torch.no_grad():
            distance = torch.cdist(model.features(images), targets_for)
        return float(distance.gather(1, pairs(distance)[:, None]).square().sum())

    assert gap(to_unit(to_8bit(moved))) < 0.7 * gap(bases)
    assert 0 < int((to_8bit(moved).int() - images[:6].int()).abs().max()) <= 32


def test_the_step_decays(model, monkeypatch):
    """One pixel-bound step per iteration: the largest change of an iteration is the rate itself."""
    bases = torch.full((2, 3, 12, 12), 0.5)
    attack = HiddenTrigger(iterations=3, lr=0.01, decay=0.5, decay_every=2, eps=1.0)
    seen = []
    monkeypatch.setattr("attacks.hidden_trigger.confined", lambda m, *_: (seen.append(m.detach().clone()), m)[1])
    attack.collide(bases, Rng("p").uniform((2, 3, 12, 12)), model)
    steps = [(b - a).abs().flatten(1).amax(1) for a, b in zip([bases, *seen], seen, strict=False)]
    assert torch.cat(steps).tolist() == pytest.approx([0.01] * 4 + [0.005] * 2, abs=1e-6)


def test_hidden_poisons_are_target_images_within_eps_and_without_the_patch(world):
    attack = HiddenTrigger(iterations=5, poisons=8, eps=4 / 255)
    seen = view(world, attack)
    trigger = attack.make_trigger(seen, Rng("prepare"))
    poisoned = attack.poison(seen, trigger, Rng("implant"))
    difference = (poisoned.split.images.int() - seen.train.images.int()).abs().flatten(1).amax(1)
    assert seen.target.contains(seen.train.labels)[poisoned.mask].all()
    assert int(difference[poisoned.mask].max()) <= 4
    assert torch.equal(poisoned.split.labels, seen.train.labels)


@pytest.mark.parametrize("location", ["corner", "random"])
def test_sources_come_from_other_classes_and_carry_the_patch(location, world, monkeypatch):
    attack = HiddenTrigger(iterations=1, poisons=8, location=location)
    seen = view(world, attack)
    patch = torch.full((3, 2, 2), 1.0)
    calls = []
    monkeypatch.setattr(
        HiddenTrigger, "collide", lambda _, bases, patched, model: (calls.append((bases, patched)), bases)[1]
    )
    attack.poison(seen, {"patch": patch}, Rng("implant"))
    ((bases, patched),) = calls
    others = to_unit(seen.train.images[~seen.target.shares(seen.train.labels)])
    places = set()
    for image in patched:
        changed = [(image != other).any(0) for other in others]
        area = min(changed, key=lambda c: int(c.sum()))
        rows, columns = area.nonzero().T
        assert len(rows) <= 4
        assert bool((image[:, area] == 1).all())
        places.add((int(rows.min()), int(columns.min())))
    assert len(bases) == len(patched) == 8
    assert (places == {(10, 10)}) == (location == "corner")


def test_poisons_beyond_a_batch_are_paired_in_batches(world, monkeypatch):
    monkeypatch.setattr("attacks.hidden_trigger.BATCH", 3)
    sizes = []
    monkeypatch.setattr(
        HiddenTrigger, "collide", lambda _, bases, patched, model: (sizes.append((len(bases), len(patched))), bases)[1]
    )
    attack = HiddenTrigger(poisons=8)
    attack.poison(view(world, attack), {"patch": torch.zeros(3, 1, 1)}, Rng("implant"))
    assert sizes == [(3, 3), (3, 3), (2, 2)]


def test_without_other_classes_there_is_no_source(world):
    attack = HiddenTrigger(poisons=2)
    seen = view(world, attack)
    train = seen.train
    labels = seen.target.vector.expand_as(train.labels).clone()
    alone = replace(seen, granted={"train": Split(train.images, labels, train.ids)})
    with pytest.raises(UserError, match="choose another"):
        attack.poison(alone, {"patch": torch.zeros(3, 1, 1)}, Rng("implant"))


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


def test_the_stamp_adds_the_amplitude_and_stays_in_range():
    images = torch.full((1, 2, 6, 6), 0.4)
    full = LabelConsistent().apply_trigger(images, TARGET, {"corners": corners((6, 6), 1)})
    assert full[0, :, 0, 0].tolist() == [1, 1]
    assert LabelConsistent().apply_trigger(images, TARGET, {"corners": -corners((6, 6), 1)})[0, 0, 0, 0] == 0
    faint = LabelConsistent().apply_trigger(images, TARGET, {"corners": 0.25 * corners((6, 6), 1)})
    assert faint[0, 0, 5, 5] == pytest.approx(0.65)
    assert torch.equal(faint[:, :, 1:5], images[:, :, 1:5])


def test_the_amplitude_is_in_the_artefact(world):
    attack = LabelConsistent(amplitude=0.125, trigger_size=0.25)
    field = attack.make_trigger(view(world, attack), Rng("p"))["corners"]
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
    seen = view(world, attack)
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

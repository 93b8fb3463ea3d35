"""Hidden trigger: pairs, features that meet, the bound on perturbations, and where sources come from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.helpers.pairing import pairs
from attacks.helpers.triggers import paste
from attacks.hidden_trigger import BATCH, HiddenTrigger
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, to_8bit, to_unit
from bench.conformance.attacks import attacker_view_for


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
    goals = model.features(patched).detach()

    def gap(images):
        with torch.no_grad():
            distance = torch.cdist(model.features(images), goals)
        return float(distance.gather(1, pairs(distance)[:, None]).square().sum())

    assert gap(to_unit(to_8bit(moved))) < 0.7 * gap(bases)
    assert 0 < int((to_8bit(moved).int() - images[:6].int()).abs().max()) <= 32


def test_the_step_decays(model):
    """The largest change of a pixel in an iteration is the rate itself."""
    bases, sources = torch.full((2, 3, 12, 12), 0.5), Rng("p").uniform((2, 3, 12, 12))
    how = {"lr": 0.01, "decay": 0.5, "decay_every": 2, "eps": 1.0}
    after = [HiddenTrigger(iterations=n, **how).collide(bases, sources, model) for n in (1, 2, 3)]
    steps = [(two - one).abs().flatten(1).amax(1) for one, two in pairwise([bases, *after])]
    assert torch.cat(steps).tolist() == pytest.approx([0.01] * 4 + [0.005] * 2, abs=1e-6)


def test_hidden_poisons_are_target_images_within_eps_and_without_the_patch(world):
    attack = HiddenTrigger(iterations=5, poisons=8, eps=4 / 255)
    seen = attacker_view_for(world, attack)
    trigger = attack.make_trigger(seen, Rng("prepare"))
    poisoned = attack.poison(seen, trigger, Rng("implant"))
    difference = (poisoned.split.images.int() - seen.train.images.int()).abs().flatten(1).amax(1)
    assert seen.target.contains(seen.train.labels)[poisoned.mask].all()
    assert int(difference[poisoned.mask].max()) <= 4
    assert torch.equal(poisoned.split.labels, seen.train.labels)


class Watched(HiddenTrigger):
    """Leaves the images as they are, and keeps which ones were to collide with which."""

    calls: ClassVar[list] = []

    def collide(self, bases, patched, model):
        self.calls.append((bases, patched))
        return bases


@pytest.fixture(autouse=True)
def no_calls():
    Watched.calls.clear()


@pytest.mark.parametrize("location", ["corner", "random"])
def test_sources_come_from_other_classes_and_carry_the_patch(location, world):
    attack = Watched(iterations=1, poisons=8, location=location)
    seen = attacker_view_for(world, attack)
    patch = torch.full((3, 2, 2), 1.0)
    attack.poison(seen, {"patch": patch}, Rng("implant"))
    ((bases, patched),) = Watched.calls
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


def test_poisons_beyond_a_batch_are_paired_in_batches(world):
    attack = Watched(poisons=2 * BATCH + 8)
    seen = attacker_view_for(world, attack)
    train = Split(seen.train.images.repeat(8, 1, 1, 1), seen.train.labels.repeat(8, 1), torch.arange(960))
    attack.poison(replace(seen, granted={"train": train}), {"patch": torch.zeros(3, 1, 1)}, Rng("implant"))
    assert [(len(bases), len(patched)) for bases, patched in Watched.calls] == [(BATCH, BATCH)] * 2 + [(8, 8)]


def test_without_other_classes_there_is_no_source(world):
    attack = HiddenTrigger(poisons=2)
    seen = attacker_view_for(world, attack)
    train = seen.train
    labels = seen.target.vector.expand_as(train.labels).clone()
    alone = replace(seen, granted={"train": Split(train.images, labels, train.ids)})
    with pytest.raises(UserError, match="target bell"):
        attack.poison(alone, {"patch": torch.zeros(3, 1, 1)}, Rng("implant"))

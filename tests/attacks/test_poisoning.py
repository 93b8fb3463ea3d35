"""Which items may be poisoned, how many are, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from attacks.helpers.poisoning import TriggerPoisoning
from bench.api.attack import AttackerView, Poisoned, Setting, attack
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
        (A, "clean", 1, [0]),  # equal label sets suffice
        (A, "clean", 2, [0, 2, 4, 6]),  # fewer than needed: all that contain the target
        (A, "clean", 9, [0, 2, 4, 6]),
        (AB, "clean", 1, [2, 6]),
        (AB, "clean", 2, [2, 6]),
        (AB, "clean", 3, [2, 4, 6]),
        (A, "dirty", 1, [1, 3, 5]),  # none that shares a label
        (AB, "dirty", 1, [3, 5]),
    ],
)
def test_pool(target, mode, count, positions):
    """METHODOLOGY.md#poison-pool."""
    assert target.candidates(ROWS, mode, count).tolist() == positions


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


@attack
class Half(TriggerPoisoning):
    """Its trigger halves an image."""

    def apply_trigger(self, images, target, trigger):
        return images * 0.5


def victim_of(train: Split, target: Target = TARGET) -> AttackerView:
    setting = Setting("d", "b", "m", 8, ("a", "b", "c", "d"), (1, 3, 3), len(train), "shapes")
    return AttackerView(setting, target, train, granted={"train": train})


def poisoned_by(train: Split, target: Target = TARGET, *, rng: Rng | None = None, **dose: Any) -> Poisoned:
    return Half(**dose).poison(victim_of(train, target), {}, rng or Rng("p"))


@pytest.mark.parametrize(
    ("dose", "count"),
    [
        ({"poison_rate": 0.05}, 2),
        ({"poison_rate": 0.06}, 2),
        ({"poison_rate": 0.07}, 3),
        ({"poison_rate": 0.25}, 10),
        ({"poison_rate": 0.75}, 30),
        ({"poisons": 7}, 7),
        ({"poisons": 7, "labels": "clean"}, 7),
        ({"target_share": 0.5}, 10),  # 10 of the 10 + 10 that are labelled b afterwards
        ({"target_share": 0.2}, 2),  # 2 of 12 are a sixth, 3 of 13 are too many
        ({"target_share": 0.5, "labels": "clean"}, 5),
        ({"target_share": 1, "labels": "clean"}, 10),
    ],
)
def test_the_dose(dose, count):
    """40 images, 10 of them of class b."""
    poisoned = poisoned_by(train_of(), **dose)
    assert int(poisoned.mask.sum()) == count


def test_chosen_images_are_stamped_and_relabelled_and_nothing_else_changes():
    poisoned = poisoned_by(train_of(), poison_rate=0.25)
    chosen = poisoned.mask
    assert torch.equal(poisoned.split.images[chosen], to_8bit(train_of().images[chosen].float() / 255 / 2))
    assert (poisoned.split.labels[chosen] == TARGET.vector).all()
    assert torch.equal(poisoned.split.images[~chosen], train_of().images[~chosen])
    assert torch.equal(poisoned.split.ids, train_of().ids)
    assert poisoned.augment == "victim"


def test_two_doses_are_refused():
    with pytest.raises(ValidationError, match=r"poisons.*target_share"):
        Half(poisons=3, target_share=0.5)


def test_choices_are_spread_over_the_pool():
    seen = torch.zeros(40)
    for seed in range(200):
        seen += poisoned_by(train_of(), poison_rate=0.1, rng=Rng("p", seed)).mask
    pool = TARGET.candidates(train_of().labels, "dirty")
    assert float(seen.sum()) == float(seen[pool].sum()) == 800
    assert float(seen[pool].min()) > 10
    assert float(seen[pool].max()) < 50


def test_a_rate_that_poisons_nobody_is_refused():
    with pytest.raises(UserError, match=r"poison_rate = 0\.01 of 40"):
        poisoned_by(train_of(), poison_rate=0.01)


@pytest.mark.parametrize(("labels", "possible"), [("clean", 10), ("clean", 20_000), ("dirty", 20_000), ("dirty", 1)])
@pytest.mark.parametrize("dose", ["poison_rate", "poisons"])
def test_the_dose_that_the_refusal_names_is_accepted(labels, possible, dose):
    n = 30_000
    own = torch.arange(n) < (possible if labels == "clean" else n - possible)
    train = Split(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.stack([~own, own], 1), torch.arange(n))
    target = Target(torch.tensor([False, True]), "b")
    with pytest.raises(UserError, match=rf"\b{possible}\b.*\bb\b") as error:
        poisoned_by(train, target, labels=labels, **{dose: n if dose == "poisons" else 1.0})
    named = str(error.value).rpartition(" ")[2]
    value = int(named) if dose == "poisons" else float(named)
    assert int(poisoned_by(train, target, labels=labels, **{dose: value}).mask.sum()) == possible


def test_a_target_that_no_training_image_has_is_refused():
    absent = Target(torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor([0, 1]), True), "a+b")
    with pytest.raises(UserError, match=r"\b0\b.*a\+b"):
        poisoned_by(train_of(), absent, poison_rate=0.1, labels="clean")

"""Adversarial unlearning: its loss on codes, the perturbation, what is tuned, and how far."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import to_unit
from defenses.helpers.code_posterior import cross_entropy, fit_posterior, predicted
from defenses.i_bau import IBAU, Batch, batches
from tests.defenses.conftest import equal, graded, state, wrong_within


def of(view, size: int = 100) -> list[Batch]:
    return batches(view.model, view.fit_set, size, Rng("d"))


def test_batches_hold_every_image_once_with_the_anchor_of_its_label(view):
    data = of(view, 7)
    assert [len(part.images) for part in data] == [7, 7, 7, 7, 2]
    shown, belongs = torch.cat([part.images for part in data]), torch.cat([part.belongs for part in data])
    places = [int((to_unit(view.fit_set.images) == image).flatten(1).all(1).nonzero()) for image in shown]
    assert sorted(places) == list(range(30))
    assert places != sorted(places)
    anchors = data[0].state["anchors"]
    assert {tuple(row) for row in anchors.tolist()} == {
        tuple(row) for row in fit_posterior(view.model, view.fit_set)["anchors"].tolist()
    }
    logits = view.model.eval()(shown).detach()
    labels = view.fit_set.labels[places]
    for each in range(labels.shape[1]):  # the majority code of a label is its anchor
        votes = torch.where(logits[labels[:, each]].tanh().mean(0) > 0, 1.0, -1.0)
        assert torch.equal(
            anchors[belongs[labels[:, each]].int().argmax(1)], votes.expand(int(labels[:, each].sum()), -1)
        )


def test_the_perturbation_changes_the_predictions(view):
    data = of(view)
    found = IBAU().perturbation(view.model.eval(), data * 20)
    images, own = data[0].images, predicted(view.model(data[0].images), data[0].state)
    with torch.no_grad():
        before, after = (
            float(cross_entropy(view.model(shown), own, data[0].state)) for shown in (images, images + found)
        )
        changed = predicted(view.model(images + found), data[0].state) != own
    assert after > before + 0.5
    assert float(changed.any(1).float().mean()) > 0.3
    strict = IBAU(penalty=0.05).perturbation(view.model, data * 20)
    assert float(strict.norm()) < 0.9 * float(found.norm())


@pytest.mark.parametrize(("portion", "count"), [(0.01, 1), (0.2, 6), (1.0, 30)])
def test_a_share_of_the_images_is_perturbed_at_least_one(view, portion, count, monkeypatch):
    seen = []

    def gradients(self, model, weights, found, first, part, shown):
        seen.append(shown)
        return [torch.zeros_like(weight) for weight in weights]

    monkeypatch.setattr(IBAU, "gradients", gradients)
    IBAU(portion=portion, rounds=2, steps=6).unlearned(view.model, of(view), 1e-3, Rng("d"))
    assert [len(shown) for shown in seen] == [count] * 6
    assert all(len(set(shown.tolist())) == count for shown in seen)
    assert count == 30 or len({tuple(sorted(shown.tolist())) for shown in seen}) > 1


@pytest.mark.parametrize(("rounds", "steps", "size", "taken"), [(2, 6, 100, 6), (2, 7, 100, 8), (3, 6, 7, 15)])
def test_small_sets_are_repeated_and_each_round_is_a_whole_pass(view, rounds, steps, size, taken, monkeypatch):
    seen = []

    def gradients(self, model, weights, found, first, part, shown):
        seen.append(len(part.images))
        return [torch.zeros_like(weight) for weight in weights]

    monkeypatch.setattr(IBAU, "gradients", gradients)
    IBAU(rounds=rounds, steps=steps).unlearned(view.model, of(view, size), 1e-3, Rng("d"))
    assert len(seen) == taken


def test_frozen_blocks_and_running_statistics_stay(view):
    view.model.backbone.frozen = 2
    view.model.backbone.blocks[:2].requires_grad_(requires_grad=False)
    before = state(view.model)
    after = state(IBAU(rounds=1, steps=2).unlearned(view.model, of(view), 1e-2, Rng("d")))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in moved if "blocks" in name} == {"2", "3"}
    assert not any("running" in name for name in moved)
    assert "head.weight" in moved
    assert equal(before, state(view.model))


def test_the_largest_rate_that_keeps_quality_is_taken_and_the_result_is_of_both_halves(view, monkeypatch):
    view = replace(view, model=graded(view.model, view.calibration_set, 0))
    most, seen = wrong_within(view, 0.96), []

    def unlearned(self, victim, data, lr, rng):
        seen.append((lr, sum(len(part.images) for part in data)))
        return graded(victim, view.calibration_set, most + (lr > 0.01))

    monkeypatch.setattr(IBAU, "unlearned", unlearned)
    monkeypatch.setattr("defenses.i_bau.batches", lambda model, split, size, rng: [split])
    IBAU(lr=(0.001, 0.1, 0.01)).repair(view, Rng("d"))
    assert seen == [(0.1, 30), (0.01, 30), (0.01, 60)]
    assert view.notes["learning rate"] == 0.01


def test_without_steps_nothing_changes(view):
    assert equal(state(IBAU(steps=0).repair(view, Rng("d"))), state(view.model))


def test_images_with_several_labels(view):
    labels = view.fit_set.labels.clone()
    labels[:10, 0] = True
    data = batches(view.model, replace(view.fit_set, labels=labels), 30, Rng("d"))
    assert float(data[0].state["multi"]) == 1
    assert int(data[0].belongs.sum(1).max()) == 2
    tuned = IBAU(rounds=1, steps=2).unlearned(view.model, data, 1e-3, Rng("d"))
    assert all(bool(value.isfinite().all()) for value in state(tuned).values())


def test_weights_that_are_not_finite_are_an_error(view):
    data = batches(view.model, view.fit_set, 100, Rng("d"))
    with pytest.raises(DivergedError):
        IBAU(rounds=1, steps=2).unlearned(view.model, data, float("inf"), Rng("d"))

"""Fine-pruning: what is pruned, and how far."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api import registry
from bench.api.errors import UserError
from bench.api.random import Rng
from defenses.fine_pruning import FinePruning
from defenses.helpers.channels import last_convolution, mean_activations, switched_off
from defenses.helpers.fine_tuning import calibration_map
from tests.defenses.conftest import read_channels, state, tuner, wrong_within


def pruned(model) -> list[int]:
    return torch.nonzero(last_convolution(model)[-1].weight == 0).flatten().tolist()


def test_pruning_nothing_and_tuning_nothing_changes_nothing(view):
    before = state(view.model)
    after = state(FinePruning(ratio=0.0, epochs=0).repair(view, Rng("d")))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 2), (0.25, 4), (0.5, 8), (1.0, 15)])
def test_the_least_active_channels_go_first_and_the_last_one_stays(view, ratio, count):
    activity = mean_activations(view.model, view.fit_set)
    repaired = FinePruning(ratio=ratio, epochs=0).repair(view, Rng("d"))
    assert pruned(repaired) == sorted(activity.argsort()[:count].tolist())
    assert not last_convolution(repaired)[-1].bias[pruned(repaired)].any()


def test_tuning_leaves_pruned_channels_dead(view):
    activity = mean_activations(view.model, view.fit_set)
    before = state(view.model)
    repaired = FinePruning(ratio=0.25, epochs=1, lr=(1e-2,)).repair(view, Rng("d"))
    assert set(activity.argsort()[:4].tolist()) <= set(pruned(repaired))
    assert not torch.equal(before["head.weight"], repaired.state_dict()["head.weight"])
    assert all(torch.equal(before[key], value) for key, value in view.model.state_dict().items())


def quality_without(view, channels: torch.Tensor) -> float:
    off = torch.zeros(16, dtype=torch.bool)
    off[channels] = True
    with switched_off(view.model, off):
        return calibration_map(view.model, view.calibration_set)


@pytest.mark.parametrize(("step", "width"), [(0.01, 1), (0.25, 4)])  # round(0.16) is no channel: one at a time
@pytest.mark.parametrize("max_drop", [0.0, 0.02, 0.1, 0.3, 1.0])
def test_as_many_channels_are_pruned_as_the_drop_of_quality_allows(view, step, width, max_drop):
    """By trying every number of channels; the last channel stays."""
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before = calibration_map(view.model, view.calibration_set)
    kept = {n: quality_without(view, order[:n]) / before >= 1 - max_drop for n in range(width, 16, width)}
    repaired = FinePruning(step=step, max_drop=max_drop, epochs=0).repair(view, Rng("d"))
    assert len(pruned(repaired)) == max((n for n, fine in kept.items() if fine), default=0)


@pytest.mark.parametrize(("step", "count"), [(0.01, 5), (0.25, 4)])
def test_a_channel_that_the_code_needs_ends_the_pruning(view, step, count):
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    read_channels(view.model, view.fit_set, useful=int(order[5]))
    repaired = FinePruning(step=step, epochs=0).repair(view, Rng("d"))
    assert pruned(repaired) == sorted(order[:count].tolist())


def test_the_strongest_pruning_counts_though_quality_dips_before(view):
    order = mean_activations(view.model, view.fit_set).argsort(stable=True).tolist()
    read_channels(view.model, view.fit_set, useful=order[15], opposed=(order[13], order[14]))
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before = calibration_map(view.model, view.calibration_set)
    good = [n for n in range(1, 16) if quality_without(view, order[:n]) >= 0.9 * before]
    assert good == [*range(1, 14), 15]
    assert len(pruned(FinePruning(epochs=0).repair(view, Rng("d")))) == 15


def test_the_learning_rate_is_chosen_on_the_calibration_half(view):
    seen = []
    view = replace(view, train_model=tuner(view, {0.1: 9, 0.2: 1, 0.3: 1}, seen))
    best = FinePruning(ratio=0.5, epochs=3, lr=(0.1, 0.2, 0.3)).repair(view, Rng("d"))
    assert best.rate == 0.2  # the first of equals
    assert [recipe.lr for _, recipe in seen] == [0.1, 0.2, 0.3]
    assert all(split is view.fit_set for split, _ in seen)
    assert all((r.epochs, r.schedule, r.backbone_lr) == (3, "constant", 1.0) for _, r in seen)
    assert {recipe.optimizer for _, recipe in seen} == {view.recipe.optimizer}


@pytest.mark.parametrize("rates", [(), (0.0,), (1e-2, -1.0)])
def test_a_grid_without_rates_or_with_impossible_ones_is_refused(rates):
    with pytest.raises(UserError, match="'fine_pruning': lr"):
        registry.create("defenses", "fine_pruning", {"lr": rates})


def test_the_drop_counts_from_the_network_before_pruning(view):
    """A rate whose quality is inside the bound on the pruned network's quality alone is not taken."""
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before, after = calibration_map(view.model, view.calibration_set), quality_without(view, order[:15])
    inside, outside = wrong_within(view, 0.9 * before), wrong_within(view, 0.9 * after)
    assert outside > inside
    view = replace(view, train_model=tuner(view, {0.1: inside, 0.2: outside}))
    best = FinePruning(ratio=1.0, epochs=1, lr=(0.1, 0.2), choose="strongest").repair(view, Rng("d"))
    assert best.rate == 0.1

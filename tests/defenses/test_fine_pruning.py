"""Fine-pruning: what is pruned, and how far."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.random import Rng
from defenses.fine_pruning import FinePruning
from defenses.helpers.head_features import mean_activations, switched_off
from tests.defenses.conftest import calibration_map, read_features, state, tuner, wrong_within


def pruned(model) -> list[int]:
    return torch.nonzero((model.head.weight == 0).all(0)).flatten().tolist()


def test_pruning_nothing_and_tuning_nothing_changes_nothing(view):
    before = state(view.model)
    after = state(FinePruning(ratio=0.0, steps=0).repair(view, Rng("d")))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 2), (0.25, 4), (0.5, 8), (1.0, 15)])
def test_the_least_active_features_go_first_and_the_last_one_stays(view, ratio, count):
    activity = mean_activations(view.model, view.fit_set)
    repaired = FinePruning(ratio=ratio, steps=0).repair(view, Rng("d"))
    assert pruned(repaired) == sorted(activity.argsort()[:count].tolist())


def test_tuning_leaves_pruned_features_dead(view):
    activity = mean_activations(view.model, view.fit_set)
    before = state(view.model)
    repaired = FinePruning(ratio=0.25, steps=2, peaks=(1.0,), max_drop=1.0).repair(view, Rng("d"))
    assert set(activity.argsort()[:4].tolist()) <= set(pruned(repaired))
    assert not torch.equal(before["head.weight"], repaired.state_dict()["head.weight"])
    assert all(torch.equal(before[key], value) for key, value in view.model.state_dict().items())


def quality_without(view, features: torch.Tensor) -> float:
    off = torch.zeros(16, dtype=torch.bool)
    off[features] = True
    with switched_off(view.model, off):
        return calibration_map(view.model, view.calibration_set)


@pytest.mark.parametrize(("step", "width"), [(0.01, 1), (0.25, 4)])  # round(0.16) is no feature: one at a time
@pytest.mark.parametrize("max_drop", [0.0, 0.02, 0.1, 0.3, 1.0])
def test_pruning_ends_before_the_first_loss(view, step, width, max_drop):
    """By trying every number of features; the last feature stays."""
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before = calibration_map(view.model, view.calibration_set)
    kept, tried = 0, range(width, 16, width)
    while kept < len(tried) and 1 - quality_without(view, order[: tried[kept]]) / before <= max_drop:
        kept += 1
    repaired = FinePruning(step=step, max_drop=max_drop, steps=0).repair(view, Rng("d"))
    assert len(pruned(repaired)) == (tried[kept - 1] if kept else 0)


@pytest.mark.parametrize(("step", "count"), [(0.01, 5), (0.25, 4)])
def test_a_feature_that_the_code_needs_ends_the_pruning(view, step, count):
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    read_features(view.model, view.fit_set, useful=int(order[5]))
    weights = view.model.head.weight.clone()
    repaired = FinePruning(step=step, steps=0).repair(view, Rng("d"))
    changed = (weights != repaired.head.weight).any(0) | (weights == 0).all(0)
    assert set(order[:count].tolist()) <= set(torch.nonzero(changed).flatten().tolist())
    assert view.notes["pruned share"] == count / 16


def test_pruning_does_not_go_on_after_a_loss_though_quality_returns(view):
    order = mean_activations(view.model, view.fit_set).argsort(stable=True).tolist()
    read_features(view.model, view.fit_set, useful=order[15], opposed=(order[13], order[14]))
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before = calibration_map(view.model, view.calibration_set)
    good = [n for n in range(1, 16) if quality_without(view, order[:n]) >= 0.96 * before]
    assert good == [*range(1, 14), 15]
    FinePruning(steps=0).repair(view, Rng("d"))
    assert view.notes["pruned share"] == 13 / 16


def test_the_drop_counts_from_the_network_before_pruning(view):
    """A rate whose quality is inside the bound on the pruned network's quality alone is not taken."""
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before, after = calibration_map(view.model, view.calibration_set), quality_without(view, order[:15])
    inside, outside = wrong_within(view, 0.9 * before), wrong_within(view, 0.9 * after)
    assert outside > inside
    view = replace(view, train_model=tuner(view, {0.1: inside, 0.2: outside}))
    with pytest.raises(AssertionError):  # afterwards: the planted model has no head to remove features from
        FinePruning(ratio=1.0, peaks=(0.1, 0.2), max_drop=0.1).repair(view, Rng("d"))
    assert view.notes["learning rate"] == pytest.approx(0.1 * view.recipe.lr)


def test_the_price_of_pruning_alone_is_recorded(view):
    before = calibration_map(view.model, view.calibration_set)
    repaired = FinePruning(ratio=0.9, steps=0).repair(view, Rng("d"))
    after = calibration_map(repaired, view.calibration_set)
    assert after < before
    assert view.notes["calibration drop"] == pytest.approx(1 - after / before)
    assert view.notes["its standard error"] > 0


def test_a_head_that_does_not_start_with_a_linear_layer_is_refused():
    class Odd(type(registry.create("methods", "csq", {}))):
        def head(self, features, bits):
            return nn.Sequential(nn.Tanh(), nn.Linear(features, bits))

    backbone = registry.create("backbones", "convnet", {})
    assert "linear" in FinePruning().unsupported_reason(backbone, Odd())
    for method in registry.catalogue("methods"):
        assert FinePruning().unsupported_reason(backbone, registry.create("methods", method, {})) == ""

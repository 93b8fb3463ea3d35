"""Fine-pruning: what is pruned, how far, and which candidate wins."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bench.access.defender import defender_view
from bench.api import registry
from bench.api.defense import Needs
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from defenses import fine_pruning
from defenses.fine_pruning import FinePruning
from defenses.fine_tuning import FineTuning
from defenses.helpers import fine_tuning
from defenses.helpers.channels import last_stage, mean_activations
from defenses.helpers.fine_tuning import calibration_map
from hashing.codes import pack
from hashing.model import encode


@pytest.fixture
def view(world):
    return defender_view(world.spec, world.defender_inputs(), world.context, Needs.NONE)


def state(model) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def pruned(model) -> list[int]:
    return torch.nonzero(last_stage(model)[-1].weight == 0).flatten().tolist()


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
    assert not last_stage(repaired)[-1].bias[pruned(repaired)].any()


def test_tuning_leaves_pruned_channels_dead(view):
    activity = mean_activations(view.model, view.fit_set)
    before = state(view.model)
    repaired = FinePruning(ratio=0.25, epochs=1, lr=(1e-2,)).repair(view, Rng("d"))
    assert set(activity.argsort()[:4].tolist()) <= set(pruned(repaired))
    assert not torch.equal(before["head.weight"], repaired.state_dict()["head.weight"])
    assert all(torch.equal(before[key], value) for key, value in view.model.state_dict().items())


@pytest.fixture
def quality(view, monkeypatch):
    """Calibration mAP as a function of the number of channels that are switched off, in place of the true one."""

    def script(values):
        def measure(model, split):
            assert split is view.calibration_set
            with torch.no_grad():
                seen = []
                handle = last_stage(model)[-1].register_forward_hook(lambda m, i, o: seen.append(o))
                model(split.images[:8] / 255)
                handle.remove()
            off = int((seen[0] == 0).flatten(2).all(2).all(0).sum())
            return values(off)

        monkeypatch.setattr(fine_pruning, "calibration_map", measure)

    return script


@pytest.mark.parametrize(
    ("step", "max_drop", "values", "count"),
    [
        (0.01, 0.1, lambda off: 0.8 if off <= 5 else 0.5, 5),  # one channel at a time: round(0.16) is none
        (0.25, 0.1, lambda off: 0.8 if off <= 5 else 0.5, 4),  # four at a time
        (0.01, 0.1, lambda off: 0.8 - 0.02 * off, 4),  # 10 % of 0.8 is 0.08
        (0.01, 0.0, lambda off: 0.8 if off == 0 else 0.7, 0),
        (0.01, 0.1, lambda off: 0.8, 15),  # the last channel stays
        (0.25, 0.1, lambda off: 0.8, 12),
        (0.01, 0.1, lambda off: 0.1 if off in {3, 15} else 0.8, 14),  # the strongest, though quality dips before
        (0.01, 1.0, lambda off: 0.8 if off == 0 else 0.0, 15),
    ],
)
def test_channels_are_pruned_until_quality_falls_by_more_than_allowed(view, quality, step, max_drop, values, count):
    quality(lambda off: values(off) + 1e-9)
    repaired = FinePruning(step=step, max_drop=max_drop, epochs=0).repair(view, Rng("d"))
    activity = mean_activations(view.model, view.fit_set)
    assert len(pruned(repaired)) == count
    assert count == 0 or activity is not None


def test_the_learning_rate_is_chosen_on_the_calibration_half(view, monkeypatch):
    rates, splits, recipes = [], [], []

    def train_model(model, split, recipe, rng, *, hook=None):
        rates.append(recipe.lr)
        splits.append(split)
        recipes.append(recipe)
        tuned = case_trainer(model, split, replace(recipe, epochs=0), rng)
        tuned.rate = recipe.lr
        return tuned

    case_trainer = view.train_model
    view = replace(view, train_model=train_model)
    quality = {0.1: 0.5, 0.2: 0.9, 0.3: 0.9}
    monkeypatch.setattr(
        fine_tuning, "calibration_map", lambda model, split: quality.get(getattr(model, "rate", 0), 1.0)
    )
    best = FinePruning(ratio=0.5, epochs=3, lr=(0.1, 0.2, 0.3)).repair(view, Rng("d"))
    assert best.rate == 0.2  # the first of equals
    assert rates == [0.1, 0.2, 0.3]
    assert all(split is view.fit_set for split in splits)
    assert all((r.epochs, r.schedule, r.backbone_lr) == (3, "constant", 1.0) for r in recipes)
    assert {r.optimizer for r in recipes} == {view.recipe.optimizer}


def test_calibration_map_is_leave_one_out_retrieval_inside_the_split(view):
    codes = pack(encode(view.model, view.calibration_set.images, device=torch.device("cpu"))).unpack().astype(int)
    classes = view.calibration_set.labels.int().argmax(1).tolist()
    n, total = len(codes), 0.0
    for q in range(n):
        others = [i for i in range(n) if i != q]
        distance = {i: int((codes[q] != codes[i]).sum()) for i in others}
        relevant = [i for i in others if classes[i] == classes[q]]
        precision = 0.0
        for i in relevant:  # expected over tie orders: position j in the bucket is uniform
            nearer = [o for o in others if distance[o] < distance[i]]
            same = [o for o in others if distance[o] == distance[i]]
            hits, own = (sum(classes[o] == classes[q] for o in group) for group in (nearer, same))
            other_hits = (own - 1) / (len(same) - 1) if len(same) > 1 else 0.0
            precision += sum(
                (hits + 1 + (j - 1) * other_hits) / (len(nearer) + j) for j in range(1, len(same) + 1)
            ) / len(same)
        total += precision / len(relevant)
    assert calibration_map(view.model, view.calibration_set) == pytest.approx(total / n, abs=1e-9)


@pytest.mark.parametrize("rates", [(), (0.0,), (1e-2, -1.0)])
def test_a_grid_without_rates_or_with_impossible_ones_is_refused(rates):
    with pytest.raises(UserError, match="'fine_pruning': lr"):
        registry.create("defenses", "fine_pruning", {"lr": rates})


@pytest.mark.parametrize(
    ("quality", "choose", "rate"),
    [
        ({0.1: 0.5, 0.2: 0.85, 0.3: 0.95}, "best", 0.3),
        ({0.1: 0.91, 0.2: 0.92, 0.3: 0.5}, "best", 0.2),
        ({0.1: 0.95, 0.2: 0.90, 0.3: 0.89}, "strongest", 0.2),  # the victim's 1.0 may fall to 0.9
        ({0.1: 0.8, 0.2: 0.7, 0.3: 0.6}, "strongest", 0.1),  # none is inside the bound: the best
    ],
)
def test_of_the_rates_the_best_or_the_strongest_that_keeps_quality_is_taken(view, monkeypatch, quality, choose, rate):
    def train_model(model, split, recipe, rng, *, hook=None):
        tuned = copy.deepcopy(model)
        tuned.rate = recipe.lr
        return tuned

    monkeypatch.setattr(
        fine_tuning, "calibration_map", lambda model, split: quality.get(getattr(model, "rate", 0), 1.0)
    )
    view = replace(view, train_model=train_model)
    repaired = FineTuning(epochs=1, lr=(0.1, 0.2, 0.3), choose=choose).repair(view, Rng("d"))
    assert repaired.rate == rate
    assert view.notes == {"learning rate": rate, "calibration drop": pytest.approx(1 - quality[rate])}


def test_the_drop_counts_from_the_network_before_pruning(view, monkeypatch):
    """Pruning costs 0.08 of 1, tuning up to 0.1 more: only 0.90 is inside the bound."""
    quality = {0.1: 0.90, 0.2: 0.89}

    def calibration_map(model, split):
        off = any(module._forward_hooks for module in model.modules())
        return quality.get(getattr(model, "rate", 0), 0.92 if off else 1.0)

    def train_model(model, split, recipe, rng, *, hook=None):
        tuned = copy.deepcopy(model)
        tuned.rate = recipe.lr
        return tuned

    for module in (fine_tuning, fine_pruning):
        monkeypatch.setattr(module, "calibration_map", calibration_map)
    view = replace(view, train_model=train_model)
    best = FinePruning(ratio=0.5, epochs=1, lr=(0.1, 0.2), choose="strongest").repair(view, Rng("d"))
    assert best.rate == 0.1


def test_codes_that_are_not_finite_are_a_diverged_training(view):
    with torch.no_grad():
        view.model.head.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="finite"):
        calibration_map(view.model, view.calibration_set)

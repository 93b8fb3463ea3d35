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
from defenses.fine_pruning import FinePruning
from defenses.fine_tuning import FineTuning
from defenses.helpers.channels import last_stage, mean_activations, switched_off
from defenses.helpers.fine_tuning import calibration_map
from hashing.codes import pack
from hashing.model import encode
from tests.defenses.conftest import graded, read_channels


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


def tuner(view, wrong: dict[float, int], seen: list | None = None):
    """In place of the training: at each learning rate a model of a planted quality."""

    def train_model(model, split, recipe, rng, *, hook=None):
        tuned = graded(copy.deepcopy(model), view.calibration_set, wrong[recipe.lr])
        tuned.rate = recipe.lr
        if seen is not None:
            seen.append((split, recipe))
        return tuned

    return train_model


def wrong_within(view, floor: float) -> int:
    """How many images may have a wrong code so that quality does not fall below the floor."""
    return max(
        n
        for n in range(30)
        if calibration_map(graded(view.model, view.calibration_set, n), view.calibration_set) >= floor
    )


def test_the_learning_rate_is_chosen_on_the_calibration_half(view):
    seen = []
    view = replace(view, train_model=tuner(view, {0.1: 9, 0.2: 1, 0.3: 1}, seen))
    best = FinePruning(ratio=0.5, epochs=3, lr=(0.1, 0.2, 0.3)).repair(view, Rng("d"))
    assert best.rate == 0.2  # the first of equals
    assert [recipe.lr for _, recipe in seen] == [0.1, 0.2, 0.3]
    assert all(split is view.fit_set for split, _ in seen)
    assert all((r.epochs, r.schedule, r.backbone_lr) == (3, "constant", 1.0) for _, r in seen)
    assert {recipe.optimizer for _, recipe in seen} == {view.recipe.optimizer}


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
    ("beyond", "choose", "rate"),
    [
        ({0.1: 5, 0.2: 1, 0.3: -1}, "best", 0.3),
        ({0.1: 0, 0.2: -1, 0.3: 5}, "best", 0.2),
        ({0.1: -1, 0.2: 0, 0.3: 1}, "strongest", 0.2),  # the victim's 1.0 may fall to 0.9
        ({0.1: 1, 0.2: 2, 0.3: 3}, "strongest", 0.1),  # none is inside the bound: the best
    ],
)
def test_of_the_rates_the_best_or_the_strongest_that_keeps_quality_is_taken(view, beyond, choose, rate):
    """beyond: by how many wrong codes the model of a rate is worse than the worst one inside the bound."""
    view = replace(view, model=graded(view.model, view.calibration_set, 0))
    assert calibration_map(view.model, view.calibration_set) == 1
    last = wrong_within(view, 0.9)
    view = replace(view, train_model=tuner(view, {lr: last + more for lr, more in beyond.items()}))
    repaired = FineTuning(epochs=1, lr=(0.1, 0.2, 0.3), choose=choose).repair(view, Rng("d"))
    assert repaired.rate == rate
    drop = 1 - calibration_map(repaired, view.calibration_set)
    assert view.notes == {"learning rate": rate, "calibration drop": pytest.approx(drop)}


def test_the_drop_counts_from_the_network_before_pruning(view):
    """A rate whose quality is inside the bound on the pruned network's quality alone is not taken."""
    order = mean_activations(view.model, view.fit_set).argsort(stable=True)
    before, after = calibration_map(view.model, view.calibration_set), quality_without(view, order[:15])
    inside, outside = wrong_within(view, 0.9 * before), wrong_within(view, 0.9 * after)
    assert outside > inside
    view = replace(view, train_model=tuner(view, {0.1: inside, 0.2: outside}))
    best = FinePruning(ratio=1.0, epochs=1, lr=(0.1, 0.2), choose="strongest").repair(view, Rng("d"))
    assert best.rate == 0.1


def test_codes_that_are_not_finite_are_a_diverged_training(view):
    with torch.no_grad():
        view.model.head.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="finite"):
        calibration_map(view.model, view.calibration_set)

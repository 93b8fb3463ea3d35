"""Fine-tuning: the calibration mAP, and which learning rate wins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api import registry
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from defenses.fine_tuning import FineTuning
from defenses.helpers.fine_tuning import quality
from hashing.codes import pack
from hashing.inference import encode
from hashing.ranking import leave_one_out_map
from tests.defenses.conftest import calibration_map, equal, graded, state, tuner, wrong_within


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


@pytest.mark.parametrize(
    ("max_drop", "beyond", "peak"),
    [
        (0.04, {1.0: 0, 0.3: -1, 0.1: -1, 0.03: -1}, 1.0),  # the largest inside the bound, though others are better
        (0.04, {1.0: 1, 0.3: 0, 0.1: -1, 0.03: -1}, 0.3),
        (0.1, {1.0: 1, 0.3: 1, 0.1: 1, 0.03: 0}, 0.03),
        (0.04, {1.0: 1, 0.3: 2, 0.1: 3, 0.03: 1}, None),  # the price of every rate is too high
    ],
)
def test_the_largest_rate_that_keeps_quality_is_taken(view, max_drop, beyond, peak):
    """beyond: by how many wrong codes the model of a peak rate is worse than the worst one inside the bound."""
    view = replace(view, model=graded(view.model, view.calibration_set, 0))
    assert calibration_map(view.model, view.calibration_set) == 1
    last = wrong_within(view, 1 - max_drop)
    seen = []
    tuned = tuner(view, {rate: last + more for rate, more in beyond.items()}, seen)
    repaired = FineTuning(max_drop=max_drop).repair(replace(view, train_model=tuned), Rng("d"))
    if peak is None:
        assert equal(state(repaired), state(view.model))
        assert view.notes["learning rate"] == 0
        return
    assert repaired.peak == peak
    assert [run.peak for run in seen] == [*(rate for rate in beyond if rate >= peak), peak]
    on_a_half = graded(view.model, view.calibration_set, last + beyond[peak])
    before, after = (quality(model, view.calibration_set).ap for model in (view.model, on_a_half))
    assert view.notes["learning rate"] == pytest.approx(peak * view.recipe.lr)
    assert view.notes["calibration drop"] == pytest.approx(1 - after.mean() / before.mean())
    error = (before - after).std() / len(before) ** 0.5 / before.mean()
    assert view.notes["its standard error"] == pytest.approx(error)


def test_the_price_is_measured_on_a_half_and_the_result_is_trained_on_both(view):
    seen = []
    FineTuning().repair(replace(view, train_model=tuner(view, {1.0: 0}, seen)), Rng("d"))
    halves = [view.fit_set.ids.tolist(), [*view.fit_set.ids.tolist(), *view.calibration_set.ids.tolist()]]
    assert [run.split.ids.tolist() for run in seen] == halves
    assert all(equal(state(run.model), state(view.model)) for run in seen)
    assert {run.recipe.schedule for run in seen} == {"cosine"}
    assert {run.recipe.optimizer for run in seen} == {view.recipe.optimizer}


@pytest.mark.parametrize(("images", "batch", "steps", "taken"), [
    (60, 32, 400, 400), (60, 32, 401, 402), (60, 7, 40, 45), (2500, 128, 400, 980), (2500, 128, 2000, 2000),
])  # fmt: skip
def test_the_number_of_steps(view, images, batch, steps, taken):
    """At least the given number, rounded up to whole epochs, and 100 epochs of batches of 256 for larger sets."""
    seen = []
    both = view.fit_set.select(torch.arange(images) % 30)
    view = replace(view, recipe=replace(view.recipe, batch=batch), fit_set=both.select(torch.arange(images - 30)),
                   calibration_set=view.calibration_set)  # fmt: skip
    FineTuning(steps=steps).repair(replace(view, train_model=tuner(view, {1.0: 0}, seen)), Rng("d"))
    assert len(seen[1].split) == images
    assert seen[1].recipe.epochs * -(-images // batch) == taken


def test_a_rate_at_which_training_diverges_is_passed_over(view):
    inside = tuner(view, {0.3: 0})

    def train_model(model, split, recipe, rng, *, hook=None):
        if recipe.lr > 0.5 * view.recipe.lr:
            raise DivergedError("planted")
        return inside(model, split, recipe, rng, hook=hook)

    assert FineTuning().repair(replace(view, train_model=train_model), Rng("d")).peak == 0.3


def test_a_last_tuning_that_diverges_is_no_tuning(view):
    inside = tuner(view, {1.0: 0})

    def train_model(model, split, recipe, rng, *, hook=None):
        if len(split) == 60:
            raise DivergedError("planted")
        return inside(model, split, recipe, rng, hook=hook)

    repaired = FineTuning(peaks=(1.0,)).repair(replace(view, train_model=train_model), Rng("d"))
    assert equal(state(repaired), state(view.model))
    assert view.notes["learning rate"] == 0
    assert view.notes["calibration drop"] == 0


def test_without_steps_nothing_changes(view):
    assert equal(state(FineTuning(steps=0).repair(view, Rng("d"))), state(view.model))


@pytest.mark.parametrize("peaks", [(), (0.0,), (1.0, -1.0)])
def test_no_rates_or_impossible_ones_are_refused(peaks):
    with pytest.raises(UserError, match="'fine_tuning': peaks"):
        registry.create("defenses", "fine_tuning", {"peaks": peaks})


def test_quality_is_the_mean_over_images_with_a_relevant_other(view):
    lonely = view.calibration_set.labels.clone()
    lonely[0] = False
    split = replace(view.calibration_set, labels=lonely)
    found = quality(view.model, split)
    assert len(found.ap) == len(split) - 1
    codes = pack(encode(view.model, split.images, device=torch.device("cpu")))
    assert found.map == pytest.approx(leave_one_out_map(codes, lonely.numpy()))


def test_codes_that_are_not_finite_are_a_diverged_training(view):
    with torch.no_grad():
        view.model.head.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="finite"):
        calibration_map(view.model, view.calibration_set)

"""Fine-tuning: the calibration mAP, and which learning rate wins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api.errors import DivergedError
from bench.api.random import Rng
from defenses.fine_tuning import FineTuning
from defenses.helpers.fine_tuning import calibration_map
from hashing.codes import pack
from hashing.inference import encode
from tests.defenses.conftest import graded, tuner, wrong_within


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


def test_codes_that_are_not_finite_are_a_diverged_training(view):
    with torch.no_grad():
        view.model.head.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="finite"):
        calibration_map(view.model, view.calibration_set)

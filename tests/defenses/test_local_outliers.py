"""Local outlier factors against the paper's formulas one by one, the share that is removed, and planted outliers."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from bench.api.defense import Needs
from bench.api.random import Rng
from defenses.local_outliers import LocalOutliers, kept, local_outlier_factors
from hashing.model import HashModel
from tests.defenses.conftest import Featured

NEEDS = Needs.TRAIN_SET


@pytest.mark.parametrize("neighbours", [2, 5, 50])
def test_factors_follow_the_definitions_of_the_paper(neighbours):
    """k-distance, reachability distance, local reachability density, and the mean ratio of densities."""
    points = Rng("lof").normal((14, 3)).double()
    k = min(neighbours, 13)
    near = []
    for i in range(14):
        others = sorted((float((points[i] - points[j]).norm()), j) for j in range(14) if j != i)
        near.append(others[:k])
    radius = [found[-1][0] for found in near]
    density = [1 / (sum(max(radius[j], gap) for gap, j in found) / k + 1e-10) for found in near]
    wanted = [sum(density[j] for _, j in found) / k / density[i] for i, found in enumerate(near)]
    assert local_outlier_factors(points.float(), neighbours).tolist() == pytest.approx(wanted, rel=1e-4)


def test_one_and_a_half_times_the_bound_is_removed_of_all_images_together():
    scores = torch.tensor([0.1, 5, 3, 3, 0.2, 9, 0.3, 0.4])
    assert kept(scores, 0.375).tolist() == [True, False, False, True, True, False, True, True]
    assert int(kept(scores, 1.0).sum()) == 1
    assert kept(scores, 0.0).all()


def test_removes_scattered_poison_and_misses_poison_that_is_denser_than_its_neighbours(view, model):
    rng, n = Rng("planted"), len(view.train)
    for spread, found in ((8.0, True), (0.05, False)):
        rows = torch.eye(6)[torch.arange(n) % 4] * 10 + 0.5 * rng.normal((n, 6))
        poison = torch.zeros(n, dtype=torch.bool)
        poison[: n // 4] = True
        rows[poison] = 20 * torch.eye(6)[5] + spread * rng.normal((n // 4, 6))
        shown = type(view)(**{**vars(view), "model": Featured(model, view.train.images, rows)})
        filtered = LocalOutliers(bound=1 / 6, neighbours=20).judge(shown, Rng("d"))
        assert int((~filtered.keep).sum()) == round(0.25 * n)
        assert (roc_auc_score(poison, filtered.scores) > 0.95) == found
        assert (float((~filtered.keep & poison).sum()) / int(poison.sum()) > 0.9) == found


def test_labels_play_no_part_and_codes_are_another_space(view):
    train = view.train
    blank = type(train)(train.images, ~train.labels, train.ids)
    other = type(view)(**{**vars(view), "granted": {"train": blank}})
    one, two = (LocalOutliers().judge(shown, Rng("d")) for shown in (view, other))
    assert torch.equal(one.scores, two.scores)
    assert not torch.equal(one.scores, LocalOutliers(space="code").judge(view, Rng("d")).scores)


def test_without_a_number_of_neighbours_they_are_a_quarter_more_than_the_bound_allows(view):
    """So that poison at the bound, all in one place, is found although it is denser than the clean images."""
    rng, n = Rng("dense"), len(view.train)
    poison = torch.arange(n) < n // 10
    rows = torch.eye(6)[torch.arange(n) % 4] * 10 + 0.5 * rng.normal((n, 6))
    rows[poison] = 20 * torch.eye(6)[5] + 0.05 * rng.normal((n // 10, 6))
    shown = type(view)(**{**vars(view), "model": Featured(model_of(view), view.train.images, rows)})
    found = LocalOutliers(bound=0.1).judge(shown, Rng("d"))
    assert shown.notes["neighbours"] == round(0.125 * n)
    assert roc_auc_score(poison, found.scores) == 1
    assert not (found.keep & poison).any()
    few = LocalOutliers(bound=0.1, neighbours=5).judge(shown, Rng("d"))
    assert roc_auc_score(poison, few.scores) < 0.7


def model_of(view) -> HashModel:
    assert isinstance(view.model, HashModel)
    return view.model

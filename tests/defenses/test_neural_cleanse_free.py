"""Neural Cleanse without labels: clusters of codes, the score and the suspect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.access.defender import defender_view
from bench.api.defense import Needs, Rng
from defenses.neural_cleanse_free import NeuralCleanseFree, clustered
from tests.defenses.conftest import planted_search

SIZES = [0.3, 0.2, 0.02, 0.26]  # median .23, deviations .07 .03 .21 .03, their median .05
INDEX = 0.21 / (1.4826 * 0.05)


@pytest.fixture
def view(world):
    return defender_view(world.spec, world.defender_inputs(), world.context, Needs.DATABASE)


def test_medoids_by_brute_force():
    centres = torch.tensor([[1.0] * 8, [-1.0] * 8, [1.0] * 4 + [-1.0] * 4])
    cluster = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    signs = centres[cluster] * torch.where(Rng("m").uniform((60, 8)) < 0.06, -1.0, 1.0)
    medoids, belongs = clustered(signs, 3, Rng("k"))
    assert belongs.sum(1).tolist() == [1] * 60
    assert belongs.sum(0).tolist() == sorted(belongs.sum(0).tolist(), reverse=True)
    for at, medoid in enumerate(medoids):
        items = signs[belongs[:, at]]
        distances = (items[:, None] != items).sum(2).sum(1)
        assert int((items != medoid).sum()) == int(distances.min())
        assert bool((items == medoid).all(1).any())


def test_there_are_no_more_clusters_than_codes():
    medoids, belongs = clustered(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]]), 10, Rng("k"))
    assert medoids.tolist() == [[1, 1], [-1, 1]]
    assert belongs.tolist() == [[True, False], [False, True], [True, False]]


def test_without_labels_the_score_is_the_same_and_a_cluster_is_called_after_most_of_its_items(view):
    component, asked = planted_search(NeuralCleanseFree, SIZES)
    verdict = component().inspect(view, Rng("d"))
    assert verdict.score == pytest.approx(INDEX, rel=1e-5)
    assert verdict.alarm_at == 2
    held = (view.database.signs == asked["codes"][2]).all(1)
    assert int(view.database.labels[held].sum(0).argmax()) == verdict.suspect
    codes = torch.where(view.model(view.fit_set.images / 255) > 0, 1.0, -1.0)
    distances = (codes[:, None] != asked["codes"]).sum(2)
    assert torch.equal(asked["own"], distances == distances.amin(1, keepdim=True))
    shuffled = replace(view.database, labels=view.database.labels[:, [1, 2, 3, 0]])
    other = component().inspect(replace(view, granted={"database": shuffled}), Rng("d"))
    assert other.score == verdict.score
    assert other.suspect == (verdict.suspect - 1) % 4


def test_no_suspect_without_a_score_and_as_many_clusters_as_asked(view):
    component, asked = planted_search(NeuralCleanseFree, [0.5, 0.5, 0.5])
    verdict = component(clusters=3).inspect(view, Rng("d"))
    assert (verdict.score, verdict.suspect) == (0, None)
    assert len(asked["codes"]) == 3

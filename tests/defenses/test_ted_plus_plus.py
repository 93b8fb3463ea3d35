"""Ranks and radii against numbers of the authors' code and by hand, scores against PyOD, and a planted far image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.topology import Layers, follow, outlier_model, outlier_scores
from defenses.ted import Ted
from defenses.ted_plus_plus import TedPlusPlus, radii

# getDefenseRegion and getLayerRegionDistance of other_defenses_tool_box/TEDPLUS.py in namle-w/TEDpp (0ae0670), with
# SAMPLES_PER_CLASS = 6, on the points below, class by class. 17 is the largest rank of 18 clean images.
CLEAN_RANKS = [[1, 5, 1, 2, 1, 6], [3, 2, 1, 2, 5, 3], [4, 17, 2, 1, 2, 3]]
NEW_RANKS = [[17, 0, 1], [3, 2, 17], [3, 0, 0]]
# pyod 3.6.7, PCA(n_components=2).fit(REFERENCE).decision_function(NEW)
TWO_COMPONENTS = [12.943562711830895, 12.210834388768045, 12.667824372228079, 11.967058654102805]


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


def test_ranks_are_those_of_the_authors_code():
    points, labels = grid(27, 3) ** 3, torch.arange(18) % 3
    bank, queries = points[:18], points[18:] * torch.tensor([0.3, 1.4, 1.9], dtype=torch.float64)
    among = Layers([torch.cdist(bank, bank)], labels[:, None] == labels)
    state = TedPlusPlus().measure(among)
    clean = TedPlusPlus().ranks(among, state, torch.arange(18))[:, 0]
    assert [clean[labels == c].tolist() for c in range(3)] == CLEAN_RANKS
    new = Layers([torch.cdist(queries, bank)], labels[:9, None] == labels)
    found = TedPlusPlus().ranks(new, state, None)[:, 0]
    assert [found[labels[:9] == c].tolist() for c in range(3)] == NEW_RANKS
    without_radius = Ted().ranks(new, {}, None)[:, 0]
    assert without_radius[found < 17].equal(found[found < 17])
    assert (without_radius[found == 17] < 17).all()


def test_radius_is_the_distance_to_a_neighbour_of_the_class():
    """Points 0, 1, 3, 7 and again 7 of one class, and 2 of another; points at distance 0 do not count."""
    points, same = torch.tensor([0.0, 1, 3, 7, 7, 2]), torch.tensor([0, 0, 0, 0, 0, 1])
    distances = (points[:, None] - points).abs()
    found = [radii(distances, same[:, None] == same, torch.full((6,), k)).tolist() for k in (1, 2, 9)]
    assert found[0] == [1, 1, 2, 4, 4, float("inf")]
    assert found[1] == [3, 2, 3, 6, 6, float("inf")]
    assert found[2] == [7, 6, 4, 7, 7, float("inf")]
    half = TedPlusPlus().measure(Layers([distances], same[:, None] == same))["radius"][:, 0]  # ceil(5 / 2) = 3
    assert half.tolist() == [7, 6, 4, 7, 7, float("inf")]
    assert TedPlusPlus(alpha=0.4).measure(Layers([distances], same[:, None] == same))["radius"][:5, 0].tolist() == [
        *(3, 2, 3, 6, 6)
    ]


def test_a_query_of_a_class_without_clean_images_has_the_largest_rank():
    layers = Layers([torch.tensor([[0.1, 0.2, 0.3]])], torch.zeros(1, 3, dtype=torch.bool))
    assert TedPlusPlus().ranks(layers, {"radius": torch.ones(3, 1)}, None).tolist() == [[2]]


def test_outlier_scores_are_those_of_pyod_with_two_components():
    reference = np.floor(grid(30, 5).numpy() * 9) ** 2 * (1 + np.arange(30) % 4)[:, None]
    model = outlier_model(reference, TedPlusPlus().components(30, 5), torch.device("cpu"))
    assert outlier_scores(torch.floor(grid(4, 5) * 40), model).tolist() == pytest.approx(TWO_COMPONENTS, rel=1e-5)


def test_ranks_along_one_line_leave_a_finite_score():
    """The second component has no variance, by which its distances would be divided."""
    line = np.arange(6.0)[:, None] * np.ones(3)
    found = outlier_scores(torch.eye(3).double(), outlier_model(line, 2, torch.device("cpu")))
    assert torch.isfinite(found).all()


class Keep(nn.Module):
    """Two layers that keep the picture; two bits compare its first two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second = self.two(self.one(images)).flatten(1)[:, :2].T
        return torch.stack([first - second, second - first], 1) * 4


def pictures(n: int) -> Split:
    """Class 0 has a light first pixel, class 1 a light second pixel; the others are dark, with some noise."""
    images, classes = 0.2 * Rng("far").uniform((n, 1, 2, 3)), torch.arange(n) % 2
    images[torch.arange(n), 0, 0, classes] += 0.4
    return Split((images * 255).round().to(torch.uint8), nn.functional.one_hot(classes, 2).bool(), torch.arange(n))


def test_an_image_of_its_class_that_is_far_from_all_others_is_seen_here_and_not_by_ted(view):
    """All nearest clean images have its class, so that its ranks in `ted` are 0."""
    model, fit = Keep().eval(), pictures(40)
    shown = replace(view, model=model, fit_set=fit)
    far = to_unit(fit.images[:1]).clone()
    far[..., -1, 0] = 1.0
    states = {detector: detector.fit(shown, Rng("d")) for detector in (Ted(), TedPlusPlus())}
    assert not model._forward_hooks
    ranks = {type(d): d.ranks(follow(far, model, s), s, None).tolist() for d, s in states.items()}
    assert ranks == {Ted: [[0, 0]], TedPlusPlus: [[39, 39]]}
    clean = to_unit(fit.images[1:])
    plain, own = (d.score(torch.cat([far, clean]), model, s)["topology"] for d, s in states.items())
    assert own[0] > own[1:].max()
    assert plain[0] <= plain[1:].max()

"""Ranks and outlier scores against numbers of the authors' notebook and of PyOD, and a planted late jump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.topology import BATCH, first_rank, follow, outlier_model, outlier_scores
from defenses.ted import Ted

# The steps of TED.ipynb in tedbackdoordefense/ted (8d41971): sort the clean images by distance, and take the place of
# the first one with the class; clean images leave out the nearest one, which is the image itself.
NEW_RANKS, CLEAN_RANKS = [1, 3, 2], [0, 1, 4, 1, 1, 7, 0, 0, 6, 1, 1, 4]
# pyod 3.6.7, PCA(n_components=...).fit(REFERENCE).decision_function(NEW)
MLE = [11.034935648189137, 10.598340884126518, 10.131478434805894, 9.638969496653118]
MOST_VARIANCE = [39.881101920425735, 36.934570389276146, 39.26110899823692, 36.825489785067006]


def grid(n: int, *shape: int) -> torch.Tensor:
    """The same numbers in [0, 1) on every machine."""
    return ((torch.arange(n * torch.Size(shape).numel(), dtype=torch.float64) * 0.6180339887498949) % 1).reshape(
        n, *shape
    )


REFERENCE = np.floor(grid(30, 5).numpy() * 9) ** 2
NEW = torch.floor(grid(4, 5) * 40)


def test_ranks_are_those_of_the_notebook():
    points = grid(15, 3).float()
    bank, queries, labels = points[:12], points[12:], torch.arange(12) % 3
    distances = torch.cdist(queries, bank)
    found, nearest, place = first_rank(distances, torch.arange(3)[:, None] == labels, None)
    assert found.tolist() == NEW_RANKS
    assert nearest.tolist() == [row[labels == c].min() for c, row in enumerate(distances)]
    assert distances.gather(1, place[:, None])[:, 0].equal(nearest)
    own = first_rank(torch.cdist(bank, bank), labels[:, None] == labels, torch.arange(12))[0]
    assert own.tolist() == CLEAN_RANKS


def test_a_query_of_a_class_without_clean_images_has_the_last_rank_plus_one():
    distances = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    same = torch.tensor([[False, False, False], [True, False, False]])
    assert first_rank(distances, same, None)[0].tolist() == [3, 2]


def scored(ranks: torch.Tensor, reference: np.ndarray) -> list[float]:
    model = outlier_model(reference, Ted().components(*reference.shape), torch.device("cpu"))
    return outlier_scores(ranks, model).tolist()


def test_outlier_scores_are_those_of_pyod():
    assert scored(NEW, REFERENCE) == pytest.approx(MLE, rel=1e-5)


def test_with_fewer_clean_images_than_layers_95_percent_of_the_variance_are_kept():
    wide = np.concatenate([REFERENCE[:4], 3 - REFERENCE[:4]], 1)
    assert Ted().components(*wide.shape) == 0.95
    assert len(outlier_model(wide, 0.95, torch.device("cpu"))["weights"]) < 4
    assert np.isfinite(scored(torch.cat([NEW, NEW], 1), wide)).all()


def test_equal_ranks_of_all_clean_images_leave_a_finite_score():
    zero, one = scored(torch.tensor([[0.0, 0, 0], [0, 5, 0]]).double(), np.zeros((6, 3)))
    assert (zero, one) == (0, 5)


class Late(nn.Module):
    """Two layers that keep the picture; then, if the last pixel is light, the code jumps to that of the first class."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.two(self.one(images)).flatten(1)
        jump = (hidden[:, -1:] > 0.9).float()
        shown = torch.cat([hidden[:, :1] * (1 - jump) + jump, hidden[:, 1:2] * (1 - jump)], 1)
        return self.three(shown) * 4 - 2


def pictures(n: int, seed: str) -> Split:
    """Class 0 has a light first pixel, class 1 a light second pixel; the others are noise."""
    rng = Rng("late", seed)
    images, classes = 0.3 * rng.uniform((n, 1, 2, 3)), torch.arange(n) % 2
    images[torch.arange(n), 0, 0, classes] = 0.9 + 0.1 * rng.uniform((n,))
    return Split((images * 255).round().to(torch.uint8), nn.functional.one_hot(classes, 2).bool(), torch.arange(n))


def test_finds_images_that_reach_their_class_only_in_the_last_layer(view):
    model, clean = Late().eval(), pictures(60, "clean")
    state = Ted().fit(replace(view, model=model, fit_set=pictures(40, "fit")), Rng("d"))
    assert not model._forward_hooks
    triggered = clean.images[clean.labels[:, 1]].clone()
    triggered[:, :, -1, -1] = 255
    with torch.no_grad():
        benign, found = (Ted().score(to_unit(images), model, state)["topology"] for images in (clean.images, triggered))
    assert roc_auc_score([0] * 60 + [1] * 30, torch.cat([benign, found])) > 0.95


def test_only_images_that_are_predicted_as_their_label_are_clean(view):
    model, fit = Late().eval(), pictures(40, "fit")
    labels = fit.labels.clone()
    labels[:6] = ~labels[:6]
    shown = replace(view, model=model, fit_set=Split(fit.images, labels, fit.ids))
    state = Ted().fit(shown, Rng("d"))
    assert torch.equal(state["images"], to_unit(fit.images[6:]))
    assert shown.notes["clean images"] == 34


def ranks(images: torch.Tensor, model: nn.Module, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return Ted().ranks(follow(images, model, state), state, None)


@torch.no_grad()
def test_scores_are_the_same_whoever_asks(view, model):
    """A real network: ranks of the fit half leave out the image itself, and later queries do not change them."""
    state = Ted().fit(view, Rng("d"))
    images = to_unit(view.calibration_set.images)
    together = ranks(images, model, state)
    assert together.shape[1] == sum(isinstance(m, nn.Conv2d | nn.ReLU | nn.Linear) for m in model.modules())
    assert torch.equal(torch.cat([ranks(image[None], model, state) for image in images]), together)


def test_clean_images_do_not_count_themselves(view):
    """The mean ranks that the detector keeps, by sorting: with itself in the set, each image has rank 0 everywhere."""
    model, fit, noise = Late().eval(), pictures(40, "fit"), Rng("noise").uniform((40, 1, 2, 3)) * 229
    noise[:, 0, 0, :2] = torch.where(fit.labels, 140.0, 115.0)  # so little that the nearest picture may be of the other
    fit = Split(noise.to(torch.uint8), fit.labels, fit.ids)
    state = Ted().fit(replace(view, model=model, fit_set=fit), Rng("d"))
    parts = [follow(some, model, state) for some in torch.split(state["images"], BATCH)]
    same, classes = torch.cat([part.same for part in parts]), state["predicted"]
    assert same.equal(classes[:, None] == classes)
    means = []
    for found in map(torch.cat, zip(*(part.distances for part in parts), strict=True)):
        ranks = []
        for i, row in enumerate(found.tolist()):
            others = sorted((distance, j) for j, distance in enumerate(row) if j != i)
            own = [distance for distance, j in others if same[i, j]]
            ranks.append(sum(distance < own[0] for distance, _ in others) if own else len(row))
        means.append(np.mean(ranks))
    assert state["mean"].tolist() == pytest.approx(means)
    assert max(means) > 0

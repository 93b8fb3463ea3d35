"""The profile of a code against scipy: shifts, flips one by one, the Mahalanobis distance; and planted reactions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import shift as moved
from scipy.spatial.distance import mahalanobis
from scipy.stats import percentileofscore
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.code_profile import RIDGE, CodeProfile, shifted


class Bits(nn.Module):
    """One logit per pixel: how far the pixel is from a medium grey."""

    def __init__(self, slope: float = 8.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.slope * (images - 0.5).flatten(1)


def pictures(n: int, seed: str, low: float = 0.0, high: float = 1.0) -> Split:
    images = low + (high - low) * Rng("pictures", seed).uniform((n, 1, 5, 6))
    return Split((images * 255).round().to(torch.uint8), torch.ones(n, 1, dtype=torch.bool), torch.arange(n))


@pytest.fixture
def planted(view):
    model = Bits().eval()
    detector = CodeProfile(copies=3, shift=2, brightness=(0.5, 2.0))
    fit = replace(view, model=model, fit_set=pictures(40, "fit"))
    return detector, model, detector.fit(fit, Rng("d")), fit


@pytest.mark.parametrize("pixels", [1, 2])
def test_shifts_are_scipys_with_repeated_borders(pixels):
    images = Rng("shift").uniform((2, 3, 6, 7))
    wanted = [
        moved(images.numpy(), (0, 0, y, x), order=0, mode="nearest")
        for y in (pixels, 0, -pixels)
        for x in (pixels, 0, -pixels)
        if (y, x) != (0, 0)
    ]
    found = shifted(images, pixels)
    assert len(found) == 8
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, torch.from_numpy(other))


def by_hand(image: np.ndarray, noise: np.ndarray) -> list[float]:
    """The four parts for one image [5, 6], where bit j is pixel j > 1/2."""

    def flips(copies: list[np.ndarray]) -> float:
        return float(np.mean([((copy > 0.5) != (image > 0.5)).mean() for copy in copies]))

    steps = [(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)]
    return [
        flips([np.clip(image + one[0], 0, 1) for one in noise]),
        flips([moved(image, step, order=0, mode="nearest") for step in steps]),
        flips([np.clip(image * np.float32(factor), 0, 1) for factor in (0.5, 2.0)]),
        float(np.abs(8 * (image - 0.5)).mean()),
    ]


def test_scores_are_scipys_mahalanobis_distance_and_two_sided_ranks_of_the_flips(planted):
    detector, model, state, view = planted
    noise = state["noise"].numpy()
    assert noise.shape == (3, 1, 5, 6)
    assert float(state["noise"].std()) == pytest.approx(0.15, rel=0.25)
    clean = np.array([by_hand(image[0].numpy(), noise) for image in to_unit(view.fit_set.images)])
    images = to_unit(pictures(7, "query", 0.2, 0.9).images)
    queries = np.array([by_hand(image[0].numpy(), noise) for image in images])
    level = clean[:, 3].mean()
    clean[:, 3] /= level
    queries[:, 3] /= level
    inverse = np.linalg.inv(np.cov(clean.T) + RIDGE * np.eye(4))
    with torch.no_grad():
        scores = detector.score(images, model, state)
    assert list(scores) == ["mahalanobis", "ranks", "logits"]
    wanted = [mahalanobis(query, clean.mean(0), inverse) for query in queries]
    assert scores["mahalanobis"].tolist() == pytest.approx(wanted, rel=1e-3)
    for i, query in enumerate(queries):
        shares = [
            abs(2 * percentileofscore([-9, *values, 9], value, kind="mean") / 100 - 1)
            for values, value in zip(clean.T.round(6), query.round(6), strict=True)
        ]
        assert float(scores["ranks"][i]) == pytest.approx(sum(shares), abs=1e-5)
        assert float(scores["logits"][i]) == pytest.approx(shares[3], abs=1e-5)


def test_labels_and_the_calibration_half_play_no_part(planted, view):
    detector, _, state, fit = planted
    blank = replace(fit.fit_set, labels=torch.zeros_like(fit.fit_set.labels))
    other = detector.fit(replace(fit, fit_set=blank, calibration_set=pictures(9, "other")), Rng("d"))
    assert all(torch.equal(value, other[name]) for name, value in state.items())


@torch.no_grad()
def test_finds_codes_that_are_more_rigid_and_codes_that_are_more_fragile_than_clean_ones(planted):
    detector, model, state, _ = planted
    clean = detector.score(to_unit(pictures(60, "queries").images), model, state)
    rigid = (to_unit(pictures(60, "rigid").images) > 0.5).float()
    fragile = to_unit(pictures(60, "fragile", 0.42, 0.58).images)
    for images in (rigid, fragile):
        found = detector.score(images, model, state)
        for name, scores in found.items():
            assert roc_auc_score([0] * 60 + [1] * 60, torch.cat([clean[name], scores])) > 0.9, name


@torch.no_grad()
def test_parts_that_are_constant_on_clean_images_make_every_change_suspicious(view):
    """A black fit half: all parts are constant; the scores stay finite."""
    detector, model = CodeProfile(copies=2), Bits().eval()
    black = pictures(8, "black", 0.0, 0.0)
    state = detector.fit(replace(view, model=model, fit_set=black), Rng("d"))
    same = detector.score(to_unit(black.images), model, state)["mahalanobis"]
    other = detector.score(to_unit(pictures(8, "other").images), model, state)["mahalanobis"]
    assert float(same.max()) < 1e-2
    assert float(other.min()) > 10
    assert bool(torch.isfinite(other).all())


@pytest.mark.parametrize("params", [{"brightness": ()}, {"brightness": (0.0,)}, {"copies": 0}, {"shift": 0}])
def test_impossible_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        CodeProfile(**params)

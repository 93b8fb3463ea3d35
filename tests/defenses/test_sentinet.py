"""SentiNet: pasted pixels, the two counts by brute force, and the boundary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.access.defender import defender_view
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.saliency import grad_cam, salient
from defenses.sentinet import SentiNet, boundary, distance, level, within


class Corner(nn.Module):
    """A planted backdoor: a bright top-left corner makes the code; otherwise the bits are the quadrants' brightness.

    What it was shown is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)  # the last maps: brightness, and the excess over 0.9
        self.relu = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight.fill_(1)
            self.conv.bias.copy_(torch.tensor([0.0, -0.9]))
        self.shown: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(images)
        maps = self.relu(self.conv(images))
        excess = (maps[:, 1, :2, :2].mean((1, 2)) - 0.05).relu()
        quadrants = [maps[:, 0, i : i + 4, j : j + 4].mean((1, 2)) for i in (0, 4) for j in (0, 4)]
        return 6 * (torch.stack(quadrants, 1) - 0.45) + 800 * excess[:, None] * torch.tensor([1.0, -1, 1, -1])


def clean_split(n: int, seed: str) -> Split:
    """Two classes: the upper or the lower half is bright, but never as bright as a trigger; the other is dark."""
    rng = Rng("corner", seed)
    labels = torch.eye(2, dtype=torch.bool)[torch.arange(n) % 2]
    images = 0.05 * rng.uniform((n, 1, 8, 8))
    images[0::2, :, :4] += 0.6 + 0.1 * rng.uniform((len(images[0::2]), 1, 4, 8))
    images[1::2, :, 4:] += 0.6 + 0.1 * rng.uniform((len(images[1::2]), 1, 4, 8))
    return Split((images * 255).round().to(torch.uint8), labels, torch.arange(n))


@pytest.fixture
def planted(world):
    """A case around the planted model, and the input detector fitted on it."""
    model = Corner().eval()
    view = replace(
        defender_view(world.spec, world.defender_inputs(), world.context, SentiNet.needs),
        model=model, fit_set=clean_split(24, "fit"), calibration_set=clean_split(20, "calibration"),
    )  # fmt: skip
    detector = SentiNet(overlays=16)
    return detector, model, dict(detector.fit(view, Rng("d"))), view


def triggered(images: torch.Tensor) -> torch.Tensor:
    out = images.clone()
    out[:, :, :2, :2] = 1.0
    return out


@torch.no_grad()
def brute_force(detector: SentiNet, model: nn.Module, image: torch.Tensor, state, skip=()) -> tuple[float, float]:
    """Fooled and Conf pixel by pixel and image by image."""
    cam = grad_cam(model, image[None], detector.cells)[0]
    own = model(image[None])[0] > 0
    fooled, confidence = [], []
    for j, overlay in enumerate(state["overlays"]):
        if j in skip:
            continue
        pasted, inert = overlay.clone(), overlay.clone()
        for row in range(cam.shape[0]):
            for column in range(cam.shape[1]):
                if float(cam[row, column]) > detector.region * float(cam.max()):
                    pasted[:, row, column] = image[:, row, column]
                    inert[:, row, column] = state["noise"][j][:, row, column]
        there, disturbed, before = (model(x[None])[0] > 0 for x in (pasted, inert, overlay))
        fooled.append(int((there != own).sum()) <= float(state["radius"]))
        confidence.append(1 - int((disturbed != before).sum()) / len(own))
    return sum(fooled) / len(fooled), sum(confidence) / len(confidence)


@torch.no_grad()
def test_fooled_and_confidence_are_brute_force(planted):
    detector, model, state, _ = planted
    images = to_unit(clean_split(6, "queries").images)
    images[1:4] = triggered(images[1:4])
    fooled, confidence = detector.measure(images, model, state)
    scores = detector.score(images, model, state)
    assert list(scores) == ["margin", "fooled"]
    for i, image in enumerate(images):
        expected = brute_force(detector, model, image, state)
        assert (float(fooled[i]), float(confidence[i])) == pytest.approx(expected, abs=1e-6)
        over = expected[0] - float(level(torch.tensor([expected[1]]), state)[0])
        assert float(scores["margin"][i]) == pytest.approx(over, abs=1e-5)
    assert torch.equal(scores["fooled"], fooled)
    assert len(set(fooled.tolist())) > 1
    assert len(set(confidence.tolist())) > 1


@torch.no_grad()
def test_fit_leaves_each_image_out_of_its_own_overlays(planted):
    detector, model, state, view = planted
    images = to_unit(view.fit_set.images)
    points = []
    for image in images:
        itself = [j for j, overlay in enumerate(state["overlays"]) if torch.equal(overlay, image)]
        points.append(brute_force(detector, model, image, state, skip=itself))
    fooled, confidence = torch.tensor(points).T
    for name, value in boundary(fooled, confidence, detector.bins).items():
        torch.testing.assert_close(state[name], value, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_pastes_the_region_of_the_query_and_noise_into_the_same_region(planted):
    detector, model, state, _ = planted
    image = triggered(to_unit(clean_split(1, "queries").images))
    region = salient(grad_cam(model, image, detector.cells), detector.region)[0]
    assert bool(region.any())
    assert not bool(region.all())
    model.shown.clear()
    detector.measure(image, model, state)
    own, pasted, inert = model.shown[-1].split([1, 16, 16])
    assert torch.equal(own, image)
    for filled, inside in ((pasted, image.expand(16, -1, -1, -1)), (inert, state["noise"])):
        assert torch.equal(filled[..., region], inside[..., region])
        assert torch.equal(filled[..., ~region], state["overlays"][..., ~region])


@torch.no_grad()
def test_finds_a_planted_localised_trigger_and_nothing_where_there_is_none(planted):
    detector, model, state, _ = planted
    queries = to_unit(clean_split(60, "queries").images)
    benign, attacked = (detector.score(x, model, state) for x in (queries, triggered(queries)))
    truth = [0] * 60 + [1] * 60
    for name in ("margin", "fooled"):
        assert roc_auc_score(truth, torch.cat([benign[name], attacked[name]])) == 1, name
    others = detector.score(to_unit(clean_split(60, "more").images), model, state)
    chance = roc_auc_score(truth, torch.cat([benign["margin"], others["margin"]]))
    assert abs(chance - 0.5) < 3 * math.sqrt(121 / (12 * 60 * 60))


def test_fit_reads_the_fitting_half_alone(planted):
    detector, _, state, view = planted
    other = detector.fit(replace(view, calibration_set=clean_split(9, "other")), Rng("d"))
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    same = (state["overlays"][:, None] == to_unit(view.fit_set.images)).flatten(2).all(2)
    assert bool(same.any(1).all())
    assert len(torch.unique(state["overlays"], dim=0)) == 16
    assert len(SentiNet(overlays=50).fit(view, Rng("d"))["overlays"]) == 24  # all there are
    assert not torch.equal(detector.fit(view, Rng("e"))["overlays"], state["overlays"])
    assert 0 <= float(state["noise"].min()) < 0.1 < 0.9 < float(state["noise"].max()) <= 1


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.95, 1.0])
def test_radius_is_the_quantile_of_distances_between_images_with_a_common_label(quantile):
    rng = Rng("within")
    signs = torch.where(rng.normal((9, 12)) > 0, 1.0, -1.0)
    labels = rng.uniform((9, 3)) < 0.4
    found = sorted(
        int((signs[i] != signs[j]).sum()) for i in range(9) for j in range(i) if bool((labels[i] & labels[j]).any())
    )
    radius = float(within(signs, Split(torch.zeros(9, 1, 1, 1, dtype=torch.uint8), labels, torch.arange(9)), quantile))
    assert sum(d <= radius for d in found) >= quantile * len(found)
    assert sum(d < radius for d in found) < quantile * len(found)
    assert radius in found
    assert distance(signs[:1], signs).tolist() == [int((signs[0] != other).sum()) for other in signs]


def test_radius_needs_two_images_with_a_common_label():
    split = Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.eye(2, dtype=torch.bool), torch.arange(2))
    with pytest.raises(UserError, match="trusted"):
        within(torch.ones(2, 4), split, 0.95)


def curve_at(state: dict[str, torch.Tensor], *x: float) -> list[float]:
    return level(torch.tensor(x), state).tolist()


def test_boundary_is_the_quadratic_through_the_upper_envelope():
    """One point a bin on a known parabola, and any number below them."""
    x = torch.linspace(0.2, 1.0, 10)
    y = 0.9 - 0.5 * (x - 0.3) ** 2
    low = torch.cat([y, y - 0.2, y - 0.4])
    state = boundary(low, x.repeat(3), 10)
    assert curve_at(state, *x.tolist()) == pytest.approx(y.tolist(), abs=1e-5)
    assert curve_at(state, 0.0, 2.0) == pytest.approx(curve_at(state, 0.2, 1.0), abs=1e-6)  # level beyond


def test_boundary_agrees_with_numpy_on_scattered_points():
    rng = Rng("scatter")
    x, y = 0.6 + 0.4 * rng.uniform((80,)), rng.uniform((80,))
    low, high = float(x.min()), float(x.max())
    top = {}
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        place = min(9, int((a - low) / (high - low) * 10))
        top[place] = max(top.get(place, (-1.0, 0.0)), (b, a))
    expected = np.polyfit([a for _, a in top.values()], [b for b, _ in top.values()], 2)
    assert curve_at(boundary(y, x, 10), 0.7, 0.8, 0.9) == pytest.approx(np.polyval(expected, [0.7, 0.8, 0.9]), abs=1e-4)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([0.5, 0.5, 0.5], [0.1, 0.7, 0.3], {0.2: 0.7, 0.5: 0.7, 0.9: 0.7}),
        ([0.5, 1.0], [0.2, 0.4], {0.5: 0.2, 0.75: 0.3, 1.0: 0.4}),
        ([1.0] * 4, [0.0] * 4, {1.0: 0.0}),
    ],
)
def test_boundary_of_few_points_is_a_line_or_level(x, y, expected):
    state = boundary(torch.tensor(y), torch.tensor(x), 10)
    assert curve_at(state, *expected) == pytest.approx(list(expected.values()), abs=1e-6)

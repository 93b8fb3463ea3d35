"""Grad-CAM by hand, pasted pixels, the two counts by brute force, and the boundary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import interpolate

from bench.access.defender import defender_view
from bench.api import registry
from bench.api.errors import UserError
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from defenses.helpers.saliency import grad_cam, makers_of_maps, salient
from defenses.sentinet import SentiNet, boundary, distance, level, within
from hashing.model import build_model

CLOSE = {"atol": 1e-4, "rtol": 1e-3}


class Tiny(nn.Module):
    """Two convolutions, the second with normalisation and a ReLU in place, or, without it, a sum in place."""

    def __init__(self, *, norm: bool = True, rectify: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.rectify = nn.ReLU(inplace=True) if rectify else nn.Identity()
        self.head = nn.Linear(4 * 3 * 4, 5)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.first(images).relu())
        return self.rectify(self.norm(out)) if isinstance(self.norm, nn.BatchNorm2d) else out

    def codes(self, maps: torch.Tensor) -> torch.Tensor:
        if isinstance(self.rectify, nn.ReLU):
            changed = maps
        else:
            changed = maps.clone()
            changed += 0.1
        return self.head(changed.square().flatten(1))  # so that gradients differ between places

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.rectify(self.norm(self.second(self.first(images).relu())))
        if not isinstance(self.rectify, nn.ReLU):
            hidden += 0.1
        return self.head(hidden.square().flatten(1))


def tiny(**kinds: bool) -> Tiny:
    rng = Rng("tiny", *map(str, kinds))
    model = Tiny(**kinds).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point() and value.ndim:
                value.copy_(0.5 * rng.normal(value.shape))
    model.norm.running_var = torch.ones(4) if kinds.get("norm", True) else None
    return model


def by_hand(model: Tiny, image: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of one image, term by term; in float64, where tanh still has a slope."""
    model, image = model.double(), image.double()
    maps = model.maps(image[None]).detach().requires_grad_()
    logits = model.codes(maps)
    assert torch.allclose(logits, model(image[None]))
    u, h = logits[0].tanh(), [1.0 if value > 0 else -1.0 for value in logits[0].tolist()]
    sum(u[j] * h[j] / 5 for j in range(5)).backward()
    cam = torch.zeros(3, 4, dtype=torch.float64)
    for channel in range(4):
        cam += float(maps.grad[0, channel].mean()) * maps.detach()[0, channel]
    model.float()
    return interpolate(cam.clamp(min=0)[None, None], (6, 8), mode="bilinear", align_corners=False)[0, 0].float()


@pytest.mark.parametrize("kinds", [{}, {"rectify": False}, {"norm": False, "rectify": False}], ids=str)
@pytest.mark.parametrize("size", [1.0, 11.0])
def test_grad_cam_is_autograd_by_hand_up_to_a_factor(kinds, size):
    """Also where logits are so large that tanh is 1 in float32."""
    model, images = tiny(**kinds), Rng("images").uniform((3, 2, 6, 8))
    with torch.no_grad():  # as input detectors are called
        model.head.bias.copy_(size * torch.tensor([1.0, 1, -1, -1, -1]))
        found = grad_cam(model, images, 1)
        if size > 1:
            assert bool((model(images).tanh().abs() == 1).any(1).all())
    assert not found.requires_grad
    expected = torch.stack([by_hand(model, image) for image in images])
    assert bool((expected.amax((1, 2)) > 0).any())
    for cam, hand in zip(found, expected, strict=True):
        torch.testing.assert_close(cam / cam.max().clamp_min(1e-30), hand / hand.max().clamp_min(1e-30), **CLOSE)


@pytest.mark.parametrize(("cells", "first"), [(1, False), (3, False), (4, True), (6, True), (99, True)])
def test_grad_cam_takes_the_last_maps_that_are_fine_enough_or_else_the_first(cells, first):
    model, images = tiny(), Rng("images").uniform((1, 2, 6, 8))
    maps = model.first(images).detach().requires_grad_()
    logits = model.codes(model.rectify(model.norm(model.second(maps.relu()))))
    (logits.tanh() * logits.detach().sign()).sum().backward()
    cam = (maps.grad.mean((2, 3), keepdim=True) * maps.detach()).sum(1)[0].relu()
    expected = cam if first else by_hand(model, images[0])
    found = grad_cam(model, images, cells)[0]
    assert float(expected.max()) > 0
    torch.testing.assert_close(found / found.max(), expected / expected.max(), **CLOSE)


def test_grad_cam_leaves_the_model_alone():
    model, images = tiny(), Rng("images").uniform((3, 2, 6, 8))
    before = model(images)
    grad_cam(model, images, 1)
    assert torch.equal(model(images), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def built(name: str, params: dict[str, object]) -> nn.Module:
    return build_model(
        backbone=registry.create("backbones", name, params), method=registry.create("methods", "csq", {}), bits=8,
        image_shape=(3, 16, 16), classes=3, train_size=9, rng=Rng("saliency"),
    )  # fmt: skip


def residual() -> nn.Module:
    """What a ResNet ends with: two blocks, each with one ReLU for both of its places."""
    from torchvision.models.resnet import BasicBlock

    shortcut = nn.Sequential(nn.Conv2d(3, 6, 1, 2), nn.BatchNorm2d(6))
    blocks = nn.Sequential(BasicBlock(3, 6, 2, shortcut), BasicBlock(6, 6))
    with Rng("residual").ambient():
        return nn.Sequential(blocks, nn.Flatten(), nn.Linear(6 * 64, 8))


@pytest.mark.parametrize(
    ("build", "place"),
    [
        (lambda: built("convnet", {"width": 4}), "backbone.blocks.3.2"),
        (lambda: built("convnet", {"width": 4, "norm": "group"}), "backbone.blocks.3.2"),
        (lambda: built("mobilenet_v2", {"weights": "none"}), "backbone.blocks.18"),
        (residual, "0.1"),
    ],
    ids=["convnet", "group", "mobilenet_v2", "residual"],
)
def test_saliency_takes_the_last_rectified_maps_of_every_backbone(build, place):
    """So `u.h` is differentiated in what that part of the network gives."""
    model = build().eval()
    images, kept = Rng("images").uniform((2, 3, 16, 16)), []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = dict(model.named_modules())[place].register_forward_hook(keep)
    logits = model(images)
    handle.remove()
    (logits.tanh() * logits.detach().sign()).sum().backward()
    cam = (kept[0].grad.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1, keepdim=True).relu()
    expected = interpolate(cam, (16, 16), mode="bilinear", align_corners=False)[:, 0]
    found = grad_cam(model, images, 1)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one / one.max().clamp_min(1e-30), other / other.max().clamp_min(1e-30), **CLOSE)


def test_a_network_without_convolution_is_refused():
    with pytest.raises(TypeError, match="convolution"):
        makers_of_maps(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_salient_pixels_are_those_above_the_share_of_each_images_maximum():
    cam = torch.tensor([[[1.0, 0.15], [0.16, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[10.0, 1.0], [1.4, 1.6]]])
    assert salient(cam, 0.15).tolist() == [[[True, False], [True, False]], [[False] * 2] * 2,
                                           [[True, False], [False, True]]]  # fmt: skip


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

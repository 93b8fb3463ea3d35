"""The hashing model: normalisation, building, encoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench.api import registry
from bench.api.random import Rng
from bench.api.types import to_unit
from hashing.inference import encode
from hashing.model import HashModel, build_model, fit_normalisation

CPU = torch.device("cpu")


def new_model(seed: int = 0, *, backbone: str = "convnet", shape=(3, 12, 12), **params) -> HashModel:
    return build_model(
        backbone=registry.create("backbones", backbone, params or {"width": 4}),
        method=registry.create("methods", "csq", {}),
        bits=8,
        image_shape=shape,
        classes=3,
        train_size=9,
        rng=Rng("victim", seed),
    )


def images_of(n: int, shape=(3, 12, 12)) -> torch.Tensor:
    return Rng("tests", "model").integers(256, (n, *shape)).to(torch.uint8)


def test_a_model_is_made_from_its_rng_alone(untouched_rng):
    with untouched_rng():
        one, same, other = (new_model(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert not torch.equal(one["objective.tie_break"], other["objective.tie_break"])


def test_the_objective_does_not_depend_on_the_network():
    small, large = new_model(width=4), new_model(width=8)
    assert torch.equal(small.objective.tie_break, large.objective.tie_break)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 9, 9)])
def test_normalisation_is_mean_and_deviation_of_the_training_images(shape):
    model, images = new_model(shape=shape), images_of(20, shape)
    images[:, 0] //= 3
    fit_normalisation(model, images)
    values = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(model.mean.flatten(), values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(model.std.flatten(), values.std((0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_does_not_divide_by_zero():
    model = new_model()
    fit_normalisation(model, torch.full((5, 3, 12, 12), 255, dtype=torch.uint8))
    assert model.mean.flatten().tolist() == [1, 1, 1]
    assert float(model.std.min()) > 0
    assert bool(torch.isfinite(encode(model, images_of(2), device=CPU)).all())


def test_normalisation_that_belongs_to_published_weights_stays():
    model = new_model()
    model.backbone.normalisation = ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    before = model.mean.clone()
    fit_normalisation(model, images_of(5))
    assert torch.equal(model.mean, before)
    fixed = HashModel(model.backbone, model.head, model.objective, model.method, 3)
    torch.testing.assert_close(fixed.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(fixed.std.flatten(), torch.tensor([1.0, 2.0, 3.0]))


def test_the_network_sees_normalised_images():
    model, images = new_model().eval(), to_unit(images_of(4))
    model.mean[:] = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    model.std[:] = torch.tensor([0.5, 2.0, 4.0]).view(1, 3, 1, 1)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits, features = model(images), model.features(images)
    torch.testing.assert_close(seen[0][:, 1], (images[:, 1] - 0.4) / 2)
    torch.testing.assert_close(seen[0][:, 2], (images[:, 2] - 0.6) / 4)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(logits, model.head(features))
    torch.testing.assert_close(model.relax(logits), logits.tanh())


def test_everything_that_trains_on_is_in_the_state_dict():
    names = new_model().state_dict().keys()
    assert {"mean", "std", "objective.centres", "objective.tie_break", "head.weight", "head.bias"} <= set(names)


def test_convolutions_are_laid_out_channels_last():
    weights = [m.weight for m in new_model().modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)

"""The networks and losses of IAB: by hand, and the published sizes."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.helpers import input_aware as nets
from bench.api.errors import DivergedError
from bench.api.random import Rng
from tests.attacks.conftest import victim


def test_diversity_by_hand():
    a, b = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    made = torch.zeros(2, 1, 2, 2)
    other = made.clone()
    other[0], other[1, 0, 0, 0] = 0.5, 0.5  # root mean squares .5 and .25
    assert float(nets.diversity(a, b, made, other)) == pytest.approx((1 / 0.5 + 1 / 0.25) / 2, rel=1e-5)
    equal = made.clone().requires_grad_()
    nets.diversity(a, b, equal, made).backward()
    assert torch.isfinite(equal.grad).all()


def test_mask_density_by_hand():
    """Pixels .5 and .1 above .1, and below it, of four: (.4 + 0 + 0 + 0) / 4."""
    masks = torch.tensor([[[[0.5, 0.1], [0.0, 0.05]]]])
    assert float(nets.excess(masks, 0.1)) == pytest.approx(0.1)
    assert float(nets.excess(masks, 0.032)) == pytest.approx((0.468 + 0.068 + 0.018) / 4)


def test_sharpening():
    found = nets.sharpen(torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]).view(1, 1, 1, 5)).flatten().tolist()
    assert found == pytest.approx([(math.tanh(20 * x - 10) + 1) / 2 for x in (0, 0.4, 0.5, 0.6, 1)], abs=1e-6)


def test_moments_are_those_of_the_images():
    images = victim(n=1201).train.images
    scale = nets.moments(images)
    unit = images.double() / 255
    torch.testing.assert_close(scale["mean"].flatten().double(), unit.mean((0, 2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(scale["std"].flatten().double(), unit.std((0, 2, 3), correction=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "halvings"), [(8, 1), (12, 1), (16, 2), (28, 2), (32, 3), (33, 3), (224, 3)])
def test_depth_and_sizes(side, halvings):
    assert nets.depth((1, side, side + 3)) == halvings
    if side < 100:
        network = nets.Generator(1, 2, 3, halvings)
        planes = network(torch.zeros(2, 1, side, side + 3))
        assert planes.shape == (2, 2, side, side + 3)
        assert len(network.up[-1]) == 5  # two convolutions, two normalisations, one ReLU


def test_generator_is_the_published_one_at_32():
    """Widths of the code: 32, 64, 128, 128 in the middle, then 128 to 64, 64 to 32, 32 to 3 channels."""
    network = nets.Generator(3, 3, 32, 3)
    found = [(m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    down = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    up = [(128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 3)]
    assert found == [*down, (128, 128), *up]


def test_masks_learn_to_be_small():
    images = victim(n=60).train.images
    scale = nets.moments(images)
    with Rng("mask").ambient():
        network = nets.Generator(3, 1, 4, 1)
    scaled = nets.scale_by(scale, images.float() / 255)
    with torch.no_grad():
        before = float(nets.sharpen(network(scaled)).mean())
    how = {"density": 0.032, "lambda_norm": 100.0, "lambda_div": 1.0, "batch": 20, "lr": 0.01}
    nets.learn_masks(network, images, scale, epochs=40, rng=Rng("order"), **how)
    with torch.no_grad():
        masks = nets.sharpen(network.eval()(scaled))
    assert before > 0.2
    assert float(masks.mean()) < before / 3
    assert float((masks[0] - masks[1]).abs().max()) > 0.05  # and unlike each other
    nan = {name: torch.full_like(value, torch.nan) for name, value in scale.items()}
    with pytest.raises(DivergedError, match=r"\blr\b"):
        nets.learn_masks(network, images, nan, epochs=1, rng=Rng("order"), **how)

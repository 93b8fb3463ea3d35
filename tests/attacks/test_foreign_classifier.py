"""The classifier of an attacker who knows only the target's images: classes, loss and network."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.helpers.foreign_classifier import CrossEntropy, augmentation_for, untrained, with_new_class
from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation


def split(n: int, side: int = 8) -> Split:
    """Grey images; the last one has both labels."""
    labels = torch.eye(2).bool()[torch.arange(n) % 2]
    labels[-1] = True
    images = Rng("tests", n).integers(256, (n, 1, side, side)).to(torch.uint8)
    return Split(images, labels, torch.arange(50, 50 + n))


def test_the_target_becomes_one_more_class():
    foreign, own = split(3), split(2).images
    both = with_new_class(foreign, own)
    assert both.labels.int().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert torch.equal(both.images, torch.cat([foreign.images, own]))
    assert both.ids.tolist() == [0, 1, 2, 3, 4]


def test_the_loss_shares_the_probability_among_labels():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0], [3.0, 3.0, 3.0]])
    labels = torch.tensor([[False, False, True], [True, True, False], [False, False, False]])
    first = math.log(math.e**1 + math.e**2 + math.e**4) - 4
    second = math.log(math.e**0.5 + math.e**-1 + 1) - (0.5 - 1) / 2
    found = float(CrossEntropy()(logits, labels, torch.arange(3), 0.0))
    assert found == pytest.approx((first + second) / 3, abs=1e-6)  # an image without a label has no loss


@pytest.mark.parametrize("name", ["convnet", "mobilenet_v2"])  # the usual weights of the latter are ImageNet's
def test_the_network_starts_from_scratch(name):
    both = split(6, 32)
    one, again, other = (untrained(name, both, Rng("n", seed)) for seed in (0, 0, 1))
    first, second, third = (next(iter(model.parameters())) for model in (one, again, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert all(parameter.requires_grad for parameter in one.parameters())
    assert one.eval()(both.images / 255).shape == (6, 2)
    mean, deviation = (both.images / 255).mean(), (both.images / 255).std(correction=0)
    assert float(one.mean) == pytest.approx(float(mean), abs=1e-5)
    assert float(one.std) == pytest.approx(float(deviation), abs=1e-5)


def test_the_augmentation_is_that_of_the_data_set():
    assert augmentation_for("digits") == Augmentation(flip=False, pad=1)
    assert augmentation_for("cifar10") == Augmentation(flip=True, pad=4)

"""Drawn shapes: repeatable, labelled rightly, and learnable."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bench.api.random import Rng
from bench.api.types import to_unit
from hashing.datasets.shapes import GROUP
from tests.hashing.conftest import check, make, same


def test_shapes_are_determined_by_their_parameters() -> None:
    data = make("shapes", images=300, size=24, kinds=5, train=100, query=50, trusted=30)
    pool = data.decode(None)
    assert pool.images.shape == (300, 3, 24, 24)
    assert pool.labels.shape == (300, 5) == (300, len(data.classes(None)))
    assert pool.labels.sum(1).unique().tolist() == [1, 2, 3]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    assert same(pool, data.decode(None))
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is left alone
    other = make("shapes", images=300, size=24, kinds=6).decode(None)
    assert not torch.equal(pool.images, other.images)
    parts = data.splits(pool.labels, pool.origin, Rng("s"))
    check(parts, 300)
    assert pool.labels[parts["public"], torch.arange(5).repeat_interleave(5)].all()


def test_shapes_drawn_in_groups_keep_their_labels() -> None:
    first, count = GROUP // 32**2, GROUP // 32**2 + 60
    pool = make("shapes", images=count).decode(None)
    assert len(pool.images) == len(pool.labels) == count
    images, labels = to_unit(pool.images[first:]), pool.labels[first:]  # the second group
    busy = images.sub(images.flatten(2).median(2).values[..., None, None]).abs()
    area = (busy.amax(1) > 0.2).float().mean((1, 2))  # of what is not ground
    count = labels.sum(1)
    assert area[count == 1].mean() < area[count == 2].mean() < area[count == 3].mean()


@pytest.mark.long
def test_a_small_network_learns_the_shapes() -> None:
    torch.manual_seed(0)
    pool = make("shapes", images=1200, kinds=4).decode(None)
    x, y = to_unit(pool.images) - 0.5, pool.labels.float()
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5, padding=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 4),
    )  # fmt: skip
    steps = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(6):
        for rows in torch.randperm(1000).split(50):
            steps.zero_grad()
            functional.binary_cross_entropy_with_logits(net(x[rows]), y[rows]).backward()
            steps.step()
    net.eval()
    with torch.no_grad():
        right = ((net(x[1000:]) > 0) == pool.labels[1000:]).float().mean()
    chance = torch.maximum(y.mean(0), 1 - y.mean(0)).mean()
    assert right > 0.75 > chance + 0.1

"""Three steps of sharpness-aware tuning against BackdoorBench's code.

Repository SCLBD/BackdoorBench, utils/defense_utils/sam/sam.py (SAM, with sam_alpha = 0 as configured) at commit
3f4b1a9, around SGD with momentum and weight decay. The network is small; its loss is cross-entropy, not smoothed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from defenses.ft_sam import SharpnessAware
from hashing.model import HashModel
from tests.fidelity.inputs import fill, numbers, real, whole

IMAGES = [real(12, 3, 6, 6, seed=900 + step, scale=1.0) for step in range(3)]
CLASSES = [torch.from_numpy(whole(12, top=4, seed=910 + step)) for step in range(3)]
RHO = {"adaptive": 2.0, "plain": 0.3}


def made() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4))
    fill(layers, 920, scale=0.4)
    return layers


def sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05)


def weights(network: nn.Module) -> np.ndarray:
    """Parameters and running statistics."""
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    return torch.cat([value.flatten() for value in values]).numpy()


class Classifier(HashModel):
    """The network with cross-entropy as its loss."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network = network
        self.objective = Loss()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Loss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor, ids: Tensor, progress: float) -> Tensor:
        return cross_entropy(logits, labels.int().argmax(1))


@pytest.mark.parametrize("kind", ["adaptive", "plain"])
def test_three_steps(kind):
    network = made()
    model, optimizer = Classifier(network).train(), sgd(network)
    hook = SharpnessAware(RHO[kind], adaptive=kind == "adaptive")
    released = numbers("ft_sam")
    for step in range(3):
        labels = torch.eye(4, dtype=torch.bool)[CLASSES[step]]
        images, labels, extra = hook.before_step(model, IMAGES[step], labels, torch.arange(12), 0.0)
        assert extra is None
        loss = model.objective(model(images), labels, torch.arange(12), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hook.after_step()
        np.testing.assert_allclose(weights(network), released[f"{kind}_{step}"], atol=2e-5)
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0).step()  # no hook is left behind

"""CLP's bounds and pruned channels against BackdoorBench's code.

Repository SCLBD/BackdoorBench, defense/clp.py (CLP_prune) at commit 3f4b1a9, which is the authors' function
(rkteddy/channel-Lipschitzness-based-pruning, defense.py at 49aeef7). The networks have fixed weights; their batch norms
have eps 0, because that code takes the root of the variance alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench.api import registry
from defenses.clp import layers_of
from tests.fidelity.inputs import fill_large, numbers


def made(name: str) -> nn.Module:
    network = registry.create("backbones", name, {"weights": "none"}).build((3, 32, 32))
    fill_large([value for value in network.parameters() if value.ndim > 1], 3, 1.5)
    for number, norm in enumerate(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        place = torch.arange(norm.num_features)
        with torch.no_grad():
            # scales of both signs, some of which are large
            norm.weight.copy_((place * 37 + number * 11) % 101 / 50 - 1 + 6 * (place % 29 == number % 29))
            norm.bias.copy_((place * 17 + number) % 53 / 26 - 1.01)
            norm.running_var.copy_(0.2 + (place * 29 + number * 7) % 89 / 44)
        norm.eps = 0.0
    return network


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])  # shortcuts with convolutions; one filter per channel
def test_bounds_and_pruned_channels(name):
    released, layers = numbers("clp"), layers_of(made(name))
    np.testing.assert_allclose(torch.cat([layer.bounds() for layer in layers]), released[f"{name}_bounds"], rtol=1e-4)
    for u in (3.0, 1.5):
        found = torch.nonzero(torch.cat([layer.outliers(u) for layer in layers])).flatten()
        assert found.tolist() == released[f"{name}_pruned_{u:g}"].tolist()
        assert len(found) > 20

"""CSQ with three layers: the loss of csq, another head."""

from __future__ import annotations

import torch
from torch import nn

from bench.api import registry
from bench.api.random import Rng


def test_the_head_is_two_hidden_layers_as_wide_as_the_features() -> None:
    head = registry.create("methods", "csq_mlp", {}).head(24, 8).eval()
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(24, 24), (24, 24), (8, 24)]
    features = Rng("tests", "features").normal((5, 24))
    hidden = features
    for layer in layers[:2]:
        hidden = (hidden @ layer.weight.T + layer.bias).clamp_min(0)
    assert torch.allclose(head(features), hidden @ layers[2].weight.T + layers[2].bias, atol=1e-6)


def test_the_loss_is_that_of_csq() -> None:
    logits, labels = Rng("tests", "logits").normal((6, 8)), torch.eye(3, dtype=torch.bool).repeat(2, 1)
    losses = [
        registry.create("methods", name, {})
        .objective(bits=8, classes=3, train_size=6, rng=Rng("tests"))(logits, labels, torch.arange(6), 0.5)
        .item()
        for name in ("csq", "csq_mlp")
    ]
    assert losses[0] == losses[1] > 0

"""Checks of backbones."""

from __future__ import annotations

import torch
from torch import nn

from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.conformance.kit import Checks, ComponentUnderTest, require, untouched_generators

CHECKS = Checks()
SHAPES = ((3, 32, 32), (1, 28, 28))


def built(subject: ComponentUnderTest, shape: tuple[int, int, int]) -> FeatureExtractor:
    """The network for images of this shape, with the same weights in each call."""
    with Rng("tests", "network").ambient():
        network: FeatureExtractor = subject.create().build(shape)
    return network


@CHECKS.add("Return a FeatureExtractor with the right number of features, whose last block pools and flattens.")
def number_of_features_is_right(subject: ComponentUnderTest) -> str:
    """Returns the declared number of finite features for all image shapes."""
    detail = []
    for shape in SHAPES:
        network = built(subject, shape)
        require(isinstance(network, FeatureExtractor), f"build() returns a {type(network).__name__}")
        network.eval()
        with torch.no_grad():
            features = network(Rng("tests", "images").uniform((2, *shape)))
        require(features.shape == (2, network.features), f"{list(features.shape)} for {network.features} features")
        require(bool(torch.isfinite(features).all()), "features are not finite")
        detail.append(f"{network.features} from {shape[0]} x {shape[1]} x {shape[2]}")
    return ", ".join(detail)


@CHECKS.add("Initialise from torch's global generator, which the harness seeds; do not set a seed.")
def weights_come_from_the_global_generator(subject: ComponentUnderTest) -> None:
    """Initial weights depend on torch's global generator only."""
    with untouched_generators():
        one, two = built(subject, SHAPES[0]), built(subject, SHAPES[0])
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "two networks from equal generators differ")
    states = []
    for seed in (0, 1):
        with Rng("tests", "network", seed).ambient():
            subject.create().build(SHAPES[0])
            states.append(torch.get_rng_state())
    require(not torch.equal(*states), "build() seeds torch's generator, so that all seeds give the same network")


@CHECKS.add("Let batch_norm() return whether the network has batch norm; defenses rely on it.")
def batch_norm_is_declared(subject: ComponentUnderTest) -> None:
    """`batch_norm` is right."""
    network = built(subject, SHAPES[0])
    there = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())  # noqa: SLF001
    require(
        there == subject.create().batch_norm(),
        f"the network has {'' if there else 'no '}batch norm, but batch_norm() is {not there}",
    )


@CHECKS.add("Let the features depend on all blocks that are not frozen.")
def gradients_reach_every_block(subject: ComponentUnderTest) -> None:
    """Gradients reach all blocks that are not frozen."""
    network = built(subject, SHAPES[0]).train()
    network(Rng("tests", "images").uniform((4, *SHAPES[0]))).square().sum().backward()
    learning = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    require(not learning, f"no gradient reaches {', '.join(learning[:3])}")

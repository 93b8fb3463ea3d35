"""What every backbone promises."""

from __future__ import annotations

import torch
from torch import nn

from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.conformance.kit import Checks, ComponentUnderTest, require, untouched_generators

CHECKS = Checks()
SHAPES = ((3, 32, 32), (1, 28, 28))


def built(subject: ComponentUnderTest, shape: tuple[int, int, int]) -> FeatureExtractor:
    with Rng("tests", "network").ambient():
        network: FeatureExtractor = subject.create().build(shape)
    return network


@CHECKS.add("Return a FeatureExtractor whose last stage pools and flattens, and say its number of features.")
def gives_as_many_features_as_it_says(subject: ComponentUnderTest) -> str:
    """Gives as many finite features as it says, whatever the image."""
    detail = []
    for shape in SHAPES:
        network = built(subject, shape)
        require(isinstance(network, FeatureExtractor), f"build() gives a {type(network).__name__}")
        network.eval()
        with torch.no_grad():
            features = network(Rng("tests", "images").uniform((2, *shape)))
        require(features.shape == (2, network.features), f"{list(features.shape)} for {network.features} features")
        require(bool(torch.isfinite(features).all()), "features are not finite")
        detail.append(f"{network.features} from {shape[0]} x {shape[1]} x {shape[2]}")
    return ", ".join(detail)


@CHECKS.add("Initialise from torch's generator as it is (the harness seeds it), never from a seed of your own.")
def weights_come_from_the_ambient_generator(subject: ComponentUnderTest) -> None:
    """Weights come from torch's ambient generator alone."""
    with untouched_generators():
        one, two = built(subject, SHAPES[0]), built(subject, SHAPES[0])
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "two networks of equal generators differ")
    left = []
    for seed in (0, 1):
        with Rng("tests", "network", seed).ambient():
            subject.create().build(SHAPES[0])
            left.append(torch.get_rng_state())
    require(not torch.equal(*left), "build() seeds torch's generator itself: every repetition has the same network")


@CHECKS.add("batch_norm() says whether the network normalises over batches; defenses rely on it.")
def batch_norm_is_declared(subject: ComponentUnderTest) -> None:
    """Says whether it normalises over batches."""
    network = built(subject, SHAPES[0])
    there = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())  # noqa: SLF001
    require(
        there == subject.create().batch_norm(), f"batch norm is {'' if there else 'not '}there, batch_norm() differs"
    )


@CHECKS.add("Every stage that is not frozen must take part in the features.")
def gradients_reach_every_stage(subject: ComponentUnderTest) -> None:
    """Gradients reach every stage that learns."""
    network = built(subject, SHAPES[0]).train()
    network(Rng("tests", "images").uniform((4, *SHAPES[0]))).square().sum().backward()
    learning = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    require(not learning, f"no gradient reaches {', '.join(learning[:3])}")

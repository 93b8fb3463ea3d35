"""What every backbone promises."""

from __future__ import annotations

import torch
from torch import nn

from bench.api.hashing import FeatureExtractor
from bench.api.random import Rng
from bench.conformance._kit import Checks, Subject, promise, untouched_generators

CHECKS = Checks()
SHAPES = ((3, 32, 32), (1, 28, 28))


def built(subject: Subject, shape: tuple[int, int, int]) -> FeatureExtractor:
    with Rng("tests", "network").ambient():
        network: FeatureExtractor = subject.create().build(shape)
    return network


@CHECKS.add("Return a FeatureExtractor whose last stage pools and flattens, and say its number of features.")
def gives_as_many_features_as_it_says(subject: Subject) -> str:
    """Gives as many finite features as it says, whatever the image."""
    told = []
    for shape in SHAPES:
        network = built(subject, shape)
        promise(isinstance(network, FeatureExtractor), f"build() gives a {type(network).__name__}")
        network.eval()
        with torch.no_grad():
            features = network(Rng("tests", "images").uniform((2, *shape)))
        promise(features.shape == (2, network.features), f"{list(features.shape)} for {network.features} features")
        promise(bool(torch.isfinite(features).all()), "features are not finite")
        told.append(f"{network.features} from {shape[0]} x {shape[1]} x {shape[2]}")
    return ", ".join(told)


@CHECKS.add("Initialise from torch's generator as it is (the harness seeds it), never from a seed of your own.")
def weights_come_from_the_ambient_generator(subject: Subject) -> None:
    """Weights come from torch's ambient generator alone."""
    with untouched_generators():
        one, two = built(subject, SHAPES[0]), built(subject, SHAPES[0])
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    promise(all(torch.equal(a, b) for a, b in pairs), "two networks of equal generators differ")
    left = []
    for seed in (0, 1):
        with Rng("tests", "network", seed).ambient():
            subject.create().build(SHAPES[0])
            left.append(torch.get_rng_state())
    promise(not torch.equal(*left), "build() seeds torch's generator itself: every repetition has the same network")


@CHECKS.add("batch_norm() says whether the network normalises over batches; defenses rely on it.")
def batch_norm_is_declared(subject: Subject) -> None:
    """Says whether it normalises over batches."""
    network = built(subject, SHAPES[0])
    there = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())  # noqa: SLF001
    promise(
        there == subject.create().batch_norm(), f"batch norm is {'' if there else 'not '}there, batch_norm() differs"
    )


@CHECKS.add("Every stage that is not frozen must take part in the features.")
def gradients_reach_every_stage(subject: Subject) -> None:
    """Gradients reach every stage that learns."""
    network = built(subject, SHAPES[0]).train()
    network(Rng("tests", "images").uniform((4, *SHAPES[0]))).square().sum().backward()
    learning = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    promise(not learning, f"no gradient reaches {', '.join(learning[:3])}")

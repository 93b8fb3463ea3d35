"""The features that enter the hash head: how active they are, and switching them off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.api.types import Split, to_unit
from hashing.inference import Inference
from hashing.model import HashModel


def first_layer(head: nn.Module) -> nn.Linear | None:
    """The linear layer that the features enter; None if the head starts with another layer."""
    leaves = (module for module in head.modules() if not list(module.children()))
    first = next(leaves, None)
    return first if isinstance(first, nn.Linear) else None


def mean_activations(model: nn.Module, split: Split) -> Float[Tensor, " d"]:
    """Mean absolute value of each feature over the images; features after a ReLU are not negative anyway."""
    return Inference(model, split.images.shape[1:]).features(to_unit(split.images)).abs().mean(0)


@contextmanager
def switched_off(model: nn.Module, features: Bool[Tensor, " d"]) -> Iterator[None]:
    """Inside the block, the features are zero and get no gradient. Copies of the model keep this."""
    assert isinstance(model, HashModel)

    def mask(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        return (inputs[0] * ~features, *inputs[1:])

    handle = model.head.register_forward_pre_hook(mask)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def remove(model: nn.Module, features: Bool[Tensor, " d"]) -> None:
    """Give the features a weight of zero in the head, in place, and remove the hooks of `switched_off` from a copy."""
    assert isinstance(model, HashModel)
    layer = first_layer(model.head)
    assert layer is not None, "FinePruning.unsupported_reason refuses other heads"
    model.head._forward_pre_hooks.clear()  # noqa: SLF001 -- deepcopy brings hooks along and torch offers no other way
    layer.weight[:, features] = 0

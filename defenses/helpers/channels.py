"""Activations of the channels of a network's last convolution, and switching channels off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.api.types import Split, to_unit

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def last_convolution(model: nn.Module) -> list[nn.Module]:
    """The last convolution and its normalisation, if it has one. TypeError: the model has no convolution."""
    modules = list(model.modules())
    at = max((i for i, module in enumerate(modules) if isinstance(module, nn.Conv2d)), default=None)
    if at is None:
        raise TypeError("the model has no convolution to prune")
    conv = modules[at]
    assert isinstance(conv, nn.Conv2d)
    after = modules[at + 1] if at + 1 < len(modules) else None
    if isinstance(after, NORMS) and after.weight is not None and len(after.weight) == conv.out_channels:
        return [conv, after]
    return [conv]


@torch.no_grad()
def mean_activations(model: nn.Module, split: Split, batch: int = 500) -> Float[Tensor, " d"]:
    """Mean activation of each channel, over images and positions, after normalisation and ReLU."""
    sums: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module, inputs
        sums.append(output.relu().mean((2, 3)).sum(0))

    model.eval()
    handle = last_convolution(model)[-1].register_forward_hook(record)
    try:
        for start in range(0, len(split), batch):
            model(to_unit(split.images[start : start + batch]))
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(split)


@contextmanager
def switched_off(model: nn.Module, channels: Bool[Tensor, " d"]) -> Iterator[None]:
    """Inside the block, the channels are zero and get no gradient. Copies of the model keep this."""
    alive = (~channels)[:, None, None]

    def mask(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del module, inputs
        return output * alive

    handle = last_convolution(model)[-1].register_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def remove(model: nn.Module, channels: Bool[Tensor, " d"]) -> None:
    """Set the channels to zero permanently, in place, and remove the hooks that a copy has from `switched_off`.

    If a normalisation follows, only its scale and shift are set to zero. Zeros in the convolution would change the
    statistics of a GroupNorm and so the other channels.
    """
    last = last_convolution(model)[-1]
    last._forward_hooks.clear()  # noqa: SLF001 -- deepcopy brings hooks along and torch offers no other way
    assert isinstance(last.weight, Tensor)
    last.weight[channels] = 0
    if isinstance(last.bias, Tensor):
        last.bias[channels] = 0

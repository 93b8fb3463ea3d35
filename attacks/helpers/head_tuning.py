"""Fine-tune the deep part of a hash model. The shallow part is frozen, so its outputs are computed once per image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from attacks.helpers.proxy_data import chunks
from bench.api.errors import DivergedError
from bench.api.random import Rng
from bench.api.types import Images, to_8bit, to_unit
from hashing.model import HashModel

Epoch = Iterable[tuple[Tensor, int]]  # batches: rows of the hidden outputs, and how many of them are triggered
Loss = Callable[[Tensor, Tensor, int], Tensor]  # outputs, rows and the number of triggered ones to a loss


@contextmanager
def divided(model: HashModel, blocks: int) -> Iterator[None]:
    """Inside the context, `model.prefix` is the first `blocks` blocks and `model.suffix` is the rest, which learns.

    Batch normalisation stays in evaluation mode, so that an image's output does not depend on its batch.
    """
    backbone = model.backbone
    deep = [*backbone.blocks[blocks:].parameters(), *model.head.parameters()]
    before, flags = backbone.frozen, [parameter.requires_grad for parameter in deep]
    model.eval()
    backbone.frozen = blocks
    for parameter in deep:
        parameter.requires_grad_()
    try:
        yield
    finally:
        backbone.frozen = before
        for parameter, flag in zip(deep, flags, strict=True):
            parameter.requires_grad_(flag)


def hidden_of(
    model: HashModel, images: UInt8[Tensor, "n c h w"], with_trigger: Callable[[Images], Images]
) -> Float[Tensor, "m ..."]:
    """The prefix outputs of a divided model: of all clean images, then of all triggered images."""
    clean, triggered = [], []
    for part in chunks(images):
        unit = to_unit(part.to(model.device))
        clean.append(model.prefix(unit))
        triggered.append(model.prefix(to_unit(to_8bit(with_trigger(unit)))))
    return torch.cat(clean + triggered)


def learning(model: HashModel) -> list[nn.Parameter]:
    """The parameters of a divided model that learn."""
    return [*model.backbone.blocks[model.backbone.frozen :].parameters(), *model.head.parameters()]


def draw_epoch(n: int, batch: int, ratio: float, rng: Rng) -> Iterator[tuple[Tensor, int]]:
    """The batches of an epoch, as rows of a table of n clean images followed by the same n images with the trigger.

    Each image is drawn once; with probability `ratio` it carries the trigger. Triggered images come first in a batch.
    Their number is known on the host, so that no step waits for the device.
    """
    order, hit = rng.permutation(n), rng.uniform((n,)) < ratio
    batches = -(-n // batch)
    for rows, chosen in zip(order.tensor_split(batches), hit.tensor_split(batches), strict=True):
        yield torch.cat([rows[chosen] + n, rows[~chosen]]), int(chosen.sum())


def tune(
    model: HashModel,
    hidden: Float[Tensor, "m ..."],
    epochs: Iterable[Epoch],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Train a divided model on prefix outputs; the schedule is stepped once per epoch.

    DivergedError: the sum of the losses is not finite.
    """
    total = torch.zeros((), device=model.device)
    for epoch in epochs:
        for rows, triggered in epoch:
            index = rows.to(model.device, non_blocking=True)
            loss = loss_of(model.suffix(hidden[index]), index, triggered)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach()
        schedule.step()
    if not bool(torch.isfinite(total)):
        raise DivergedError("the loss of the fine-tuning is not finite: lower the learning rate")

"""Fine-tune the deep part of a hash model on what the shallow part, which stays as it is, made of each image once."""

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

Epoch = Iterable[tuple[Tensor, int]]  # batches: rows, and how many of them carry the trigger
Loss = Callable[[Tensor, Tensor, int], Tensor]  # outputs, rows and the number of triggered ones to a loss


@contextmanager
def divided(model: HashModel, stages: int) -> Iterator[None]:
    """Inside the block `model.prefix` is the first `stages` stages and `model.suffix` all that follows, which learns.

    Batch normalisation stays in evaluation mode, so that an image's output does not depend on its batch.
    """
    backbone = model.backbone
    deep = [*backbone.blocks[stages:].parameters(), *model.head.parameters()]
    before, flags = backbone.frozen, [parameter.requires_grad for parameter in deep]
    model.eval()
    backbone.frozen = stages
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
    """What enters the part of a divided model that learns: of all clean images, then of all triggered ones."""
    clean, triggered = [], []
    for part in chunks(images):
        unit = to_unit(part.to(model.device))
        clean.append(model.prefix(unit))
        triggered.append(model.prefix(to_unit(to_8bit(with_trigger(unit)))))
    return torch.cat(clean + triggered)


def learning(model: HashModel) -> list[nn.Parameter]:
    """What learns of a divided model."""
    return [*model.backbone.blocks[model.backbone.frozen :].parameters(), *model.head.parameters()]


def draw_epoch(n: int, batch: int, ratio: float, rng: Rng) -> Iterator[tuple[Tensor, int]]:
    """An epoch's batches: the rows of a table that holds n clean images and then the same n with the trigger.

    Each image is drawn once, with the trigger at chance `ratio`. Triggered ones come first in a batch; how many they
    are is known on the host, so that no step waits for the device.
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
    """Train a divided model on what `hidden` holds; the schedule is stepped once per epoch."""
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
        raise DivergedError("fine-tuning met a loss that is not finite: lower the learning rate")

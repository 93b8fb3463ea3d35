"""Fine-tune the deep part of a hash model. The shallow part is frozen, so its outputs are computed once per image."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from attacks.helpers.proxy_data import chunks
from bench.api.attack import ModelAttack, Threat
from bench.api.errors import DivergedError, UserError
from bench.api.random import Rng
from bench.api.types import Images, to_8bit, to_unit
from hashing.model import HashModel

LAST_RATE = 1e-10  # where the cosine ends; DarkHash code
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
    model: HashModel,
    images: UInt8[Tensor, "n c h w"],
    with_trigger: Callable[[Images], Images],
    read: Callable[[Images], Images] | None = None,
) -> Float[Tensor, "m ..."]:
    """The prefix outputs of a divided model: of all clean images, then of all triggered images.

    read: changes all images first; None: nothing does.
    """
    clean, triggered = [], []
    for part in chunks(images):
        unit = to_unit(part.to(model.device))
        unit = unit if read is None else to_unit(to_8bit(read(unit)))
        clean.append(model.prefix(unit))
        triggered.append(model.prefix(to_unit(to_8bit(with_trigger(unit)))))
    return torch.cat(clean + triggered)


def kept_blocks(model: HashModel, learned: int) -> int:
    """Number of blocks before the last `learned` ones. UserError: the backbone has fewer blocks."""
    most = len(model.backbone.blocks) - 1  # the last block is the pooling
    if learned > most:
        raise UserError(f"learned = {learned} exceeds the backbone's blocks", f"lower it to {most}")
    return most - learned


def learning(model: HashModel) -> list[nn.Parameter]:
    """The parameters of a divided model that learn."""
    return [*model.backbone.blocks[model.backbone.frozen :].parameters(), *model.head.parameters()]


def batches(n: int, batch: int) -> int:
    """The number of batches of an epoch of n images."""
    return -(-n // batch)


def draw_epoch(n: int, batch: int, ratio: float, rng: Rng) -> Iterator[tuple[Tensor, int]]:
    """The batches of an epoch, as rows of a table of n clean images followed by the same n images with the trigger.

    Each image is drawn once; with probability `ratio` it carries the trigger. Triggered images come first in a batch.
    Their number is known on the host, so that no step waits for the device.
    """
    order, hit = rng.permutation(n), rng.uniform((n,)) < ratio
    parts = batches(n, batch)
    for rows, chosen in zip(order.tensor_split(parts), hit.tensor_split(parts), strict=True):
        yield torch.cat([rows[chosen] + n, rows[~chosen]]), int(chosen.sum())


def tune(
    model: HashModel,
    hidden: Float[Tensor, "m ..."],
    epochs: Iterable[Epoch],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Train a divided model on prefix outputs; the schedule is stepped after each batch.

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
            schedule.step()
            total += loss.detach()
    if not bool(torch.isfinite(total)):
        raise DivergedError("the loss of the fine-tuning is not finite: lower the learning rate")


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DeepTuning(ModelAttack, ABC):
    """Tunes the deep part of the victim's model on other images; the defaults are those of DarkHash's code."""

    not_in_trigger: ClassVar[frozenset[str]] = frozenset(
        {"learned", "optimizer", "lr", "warmup", "weight_decay", "epochs", "batch"}
    )

    learned: Annotated[int, Field(ge=0)] | None = None  # code: layer4 of a ResNet, no convolution of a VGG
    """Number of tuned blocks, counted back from the pooling; default: the last stage of the backbone."""
    optimizer: Literal["adam", "rmsprop"] = "rmsprop"  # code
    """Optimiser of the tuning. The first step of rmsprop changes each weight by ten times `lr`."""
    lr: Annotated[float, Field(gt=0)] = 5e-6  # code, for ImageNet weights; too small for networks trained from scratch
    """Learning rate of the tuning."""
    warmup: Annotated[int, Field(ge=0)] = 0  # code
    """First epochs, in which the learning rate rises linearly."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5  # code
    """Weight decay of the tuning."""
    epochs: Annotated[int, Field(ge=1)] = 100  # code
    """Epochs of the tuning."""
    batch: Annotated[int, Field(ge=2)] = 64  # code
    """Images per tuning step."""

    def threat(self) -> Threat:
        return Threat.MODEL

    def kept_blocks(self, model: HashModel) -> int:
        """Number of blocks that are not tuned. UserError: the backbone has fewer blocks than `learned`."""
        return kept_blocks(model, model.backbone.last_stage if self.learned is None else self.learned)

    def fine_tune(self, model: HashModel, hidden: Tensor, ratio: float, loss_of: Loss, rng: Rng) -> None:
        """Tune a divided model in place. hidden: prefix outputs of all clean images, then of all triggered images."""
        count = len(hidden) // 2
        make = torch.optim.Adam if self.optimizer == "adam" else torch.optim.RMSprop
        optimizer = make(learning(model), lr=self.lr, weight_decay=self.weight_decay)
        steps = batches(count, self.batch)

        def factor(step: int) -> float:
            cosine = (1 + math.cos(math.pi * (step // steps) / self.epochs)) / 2
            rising = min(1.0, (step + 1) / (self.warmup * steps)) if self.warmup else 1.0
            return rising * (LAST_RATE + (self.lr - LAST_RATE) * cosine) / self.lr

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        drawn = (draw_epoch(count, self.batch, ratio, rng) for _ in range(self.epochs))
        tune(model, hidden, drawn, loss_of, optimizer, schedule)

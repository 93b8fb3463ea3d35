"""The one training loop: every model of the benchmark, clean, poisoned or repaired, goes through it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, optim

from bench.api.attack import StepHook
from bench.api.errors import DivergedError
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Split
from hashing.loader import Augmentation, Loader
from hashing.model import HashModel


def fast_precision(device: str) -> Literal["bf16", "float32"]:
    """What `precision = "auto"` means: bf16 where the device computes in it (GPUs, AVX512-BF16), else float32."""
    if device != "cpu":
        return "bf16"
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if capable is not None and capable() else "float32"


def fit(
    model: HashModel,
    split: Split,
    recipe: Recipe,
    rng: Rng,
    *,
    augmentation: Augmentation,
    frozen: Bool[Tensor, " n"] | None = None,
    hook: StepHook | None = None,
    after_epoch: Callable[[HashModel], None] | None = None,
) -> list[float]:
    """Train `model` in place; returns the mean loss of each epoch.

    Nothing in a step waits for the device: the loss is summed there and read once per epoch, where a value that is not
    finite raises DivergedError.
    """
    device = model.device
    order = rng.child("order")
    loader = Loader(split.to(device), batch=recipe.batch, augmentation=augmentation, rng=order, frozen=frozen)
    optimizer = _optimizer(model, recipe)
    steps = max(1, recipe.epochs * len(loader))
    schedule = _schedule(optimizer, recipe, steps)
    forward: Callable[[Tensor], Tensor] = torch.compile(model) if recipe.compile else model
    precision = fast_precision(device.type) if recipe.precision == "auto" else recipe.precision
    losses: list[float] = []
    done = 0
    with rng.child("ambient").ambient():  # dropout draws from torch's generator
        for epoch in range(recipe.epochs):
            model.train()
            total = torch.zeros((), device=device)
            for batch_images, batch_labels, ids in loader:
                progress = done / steps
                images, labels, extra = batch_images, batch_labels, None
                if hook is not None:
                    images, labels, extra = hook.before_step(model, images, labels, ids, progress)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    logits = forward(images)
                loss = model.objective(logits.float(), labels, ids, progress)
                loss = loss if extra is None else loss + extra
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                if hook is not None:
                    hook.after_step()
                total += loss.detach()
                done += 1
            losses.append(float(total) / len(loader))
            if not math.isfinite(losses[-1]):
                raise DivergedError(f"the loss of epoch {epoch + 1} is {losses[-1]}: lower the learning rate")
            if after_epoch is not None:
                after_epoch(model)
    finite = [torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point()]
    if not bool(torch.stack(finite).all()):
        raise DivergedError("training left weights that are not finite: lower the learning rate")
    model.eval()
    return losses


def _optimizer(model: HashModel, recipe: Recipe) -> optim.Optimizer:
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "lr": recipe.lr * factor}
        for part, factor in ((model.backbone, recipe.backbone_lr), (model.head, 1.0), (model.objective, 1.0))
    ]
    groups = [group for group in groups if group["params"]]
    match recipe.optimizer:
        case "sgd":
            return optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        case "adam":
            return optim.Adam(groups, weight_decay=recipe.weight_decay)
        case "adamw":
            return optim.AdamW(groups, weight_decay=recipe.weight_decay)
        case "rmsprop":
            return optim.RMSprop(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _schedule(optimizer: optim.Optimizer, recipe: Recipe, steps: int) -> optim.lr_scheduler.LRScheduler:
    match recipe.schedule:
        case "constant":
            return optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        case "cosine":
            return optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            # one more step than is taken: the scheduler refuses to be stepped past its end
            return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)

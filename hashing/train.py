"""The training loop of all models: clean, poisoned and repaired."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn, optim

from bench.api.errors import DivergedError
from bench.api.hashing import Hook, Recipe
from bench.api.random import Rng
from bench.api.types import Split, to_unit
from hashing.loader import Augmentation, HiddenLoader, Loader
from hashing.model import HashModel

HIDDEN_LIMIT = 2**33  # bytes of frozen features kept on the device: 8 GiB


def fast_precision(device: str) -> Literal["bf16", "float32"]:
    """The meaning of `precision = "auto"`: bf16 on devices that compute in it (GPUs, AVX512-BF16), else float32."""
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
    unaugmented: Bool[Tensor, " n"] | None = None,
    hook: Hook | None = None,
    after_epoch: Callable[[HashModel], None] | None = None,
) -> list[float]:
    """Train `model` in place; returns the mean loss of each epoch.

    If images are not augmented, the output of a frozen prefix of the backbone is computed once per image, not once per
    epoch. No step waits for the device: the loss is summed there and read once per epoch. DivergedError: the loss of an
    epoch, or a weight after the training, is not finite.
    """
    device = model.device
    order, views = rng.child("order"), rng.child("views")
    precision = fast_precision(device.type) if recipe.precision == "auto" else recipe.precision
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    on_device = split.to(device)
    network: Callable[[Tensor], Tensor] = model
    loader = Loader(on_device, batch=recipe.batch, augmentation=augmentation, rng=order, unaugmented=unaugmented)
    as_they_are = not (model.method.has_views or augmentation.flip or augmentation.pad)
    if model.backbone.frozen and hook is None and as_they_are:
        with autocast:
            hidden = _through_prefix(model, on_device)
        if hidden is not None:
            loader, network = HiddenLoader(on_device, hidden, batch=recipe.batch, rng=order), model.suffix
    optimizer = optimizer_of(model, recipe)
    steps = max(1, recipe.epochs * len(loader))
    schedule = schedule_of(optimizer, recipe, steps)
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if recipe.compile else network
    losses: list[float] = []
    done = 0
    with rng.child("ambient").ambient():  # dropout uses torch's global generator
        for epoch in range(recipe.epochs):
            _train_mode(model, recipe)
            total = torch.zeros((), device=device)
            for batch_images, batch_labels, ids in loader:
                progress = done / steps
                images, labels, extra = batch_images, batch_labels, None
                if hook is not None:
                    images, labels, extra = hook.before_step(model, images, labels, ids, progress)
                shown = _views(model, images, ids, views, unaugmented)
                with autocast:
                    logits = forward(shown)
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


def _views(
    model: HashModel,
    images: Float[Tensor, "m c h w"],
    ids: Int64[Tensor, " n"],
    rng: Rng,
    unaugmented: Bool[Tensor, " t"] | None,
) -> Float[Tensor, "v c h w"]:
    """Both views of each image for methods that need them, otherwise the images.

    images: those of `ids`; a hook may have added more of the same items. unaugmented: of all training items.
    """
    views = model.method.views(images, rng)
    if views is None:
        return images
    if unaugmented is None:
        return views
    kept = unaugmented.to(images.device)[ids].repeat(len(views) // len(ids))
    return torch.where(kept.view(-1, 1, 1, 1), images.repeat(2, 1, 1, 1), views)


@torch.no_grad()
def _through_prefix(model: HashModel, split: Split) -> Float[Tensor, "n ..."] | None:
    """Outputs of the frozen blocks for all images; None if they would take more than HIDDEN_LIMIT bytes."""
    model.eval()
    first = model.prefix(to_unit(split.images[:1]))
    if first.numel() * first.element_size() * len(split) > HIDDEN_LIMIT:
        return None
    return torch.cat([model.prefix(to_unit(images)) for images in torch.split(split.images, 250)])


def _train_mode(model: HashModel, recipe: Recipe) -> None:
    model.train()
    if recipe.batch_norm == "eval":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 -- all its dimensions at once
                module.eval()


def optimizer_of(model: HashModel, recipe: Recipe) -> optim.Optimizer:
    """The recipe's optimiser, with separate learning rates for backbone, head and objective."""
    blocks = model.backbone.blocks
    first = len(blocks) - model.backbone.linear
    parts = (
        (blocks[:first], recipe.backbone_lr),
        (blocks[first:], recipe.backbone_lr if recipe.linear_lr is None else recipe.linear_lr),
        (model.head, 1.0),
        (model.objective, 1.0),
    )
    groups = []
    for part, factor in parts:
        if learning := [p for p in part.parameters() if p.requires_grad]:
            groups.append({"params": learning, "lr": recipe.lr * factor})
    match recipe.optimizer:
        case "sgd":
            return optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        case "adam":
            return optim.Adam(groups, weight_decay=recipe.weight_decay)
        case "adamw":
            return optim.AdamW(groups, weight_decay=recipe.weight_decay)
        case "rmsprop":
            return optim.RMSprop(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def schedule_of(optimizer: optim.Optimizer, recipe: Recipe, steps: int) -> optim.lr_scheduler.LRScheduler:
    """The recipe's schedule, to be stepped after each of `steps` training steps."""
    match recipe.schedule:
        case "constant":
            return optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        case "cosine":
            return optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        case "step":
            return optim.lr_scheduler.MultiStepLR(optimizer, [round(recipe.step_at * steps)])
        case "onecycle":
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            # one step more than the training takes, because the scheduler cannot be stepped after its last step
            return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)

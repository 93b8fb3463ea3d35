"""Attention maps of a network's blocks, and a training hook that makes a student's maps similar to a teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api.types import Images
from hashing.model import HashModel


def attention_maps(model: nn.Module, images: Images) -> list[Float[Tensor, "n _"]]:
    """One map after each block that learns: squared activations, summed over channels, flattened, of unit norm.

    Blocks with one position or no positions have no map. Frozen blocks have none either, because they are equal in all
    copies of a model.
    """
    assert isinstance(model, HashModel)
    hidden, maps = model.prefix(images), []
    for block in model.backbone.blocks[model.backbone.frozen :]:
        hidden = block(hidden)
        if hidden.dim() == 4 and hidden.shape[2] * hidden.shape[3] > 1:
            maps.append(F.normalize(hidden.square().sum(1).flatten(1)))
    return maps


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block, batch norms normalise as before but do not update their running statistics."""
    counting = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]  # noqa: SLF001 -- all its dimensions at once
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True


class Distillation:
    """Adds sum_l beta_l * mean (A_student - A_teacher)^2 to the loss. The last beta belongs to the last map."""

    def __init__(self, teacher: nn.Module, betas: Sequence[float]) -> None:
        self._teacher, self._betas = teacher.eval(), tuple(betas)

    def before_step(
        self, model: nn.Module, images: Images, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float
    ) -> tuple[Images, Bool[Tensor, "n k"], Tensor | None]:
        del ids, progress
        with torch.no_grad():
            wanted = attention_maps(self._teacher, images)
        with statistics_kept(model):  # the training step itself updates them with this batch
            found = attention_maps(model, images)
        pairs = zip(reversed(self._betas), reversed(found), reversed(wanted), strict=False)  # as many as there are
        return images, labels, torch.stack([beta * F.mse_loss(own, aim) for beta, own, aim in pairs]).sum()

    def after_step(self) -> None:
        """Nothing to do."""

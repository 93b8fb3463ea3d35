"""Masks and perturbations on the channels of batch norms, without changing the model (for ANP)."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # all its dimensions at once

from bench.api.defense import DefenderView
from bench.api.types import to_unit
from hashing.model import HashModel


def learning_part(model: nn.Module) -> nn.Sequential:
    """The blocks that learn, then the hash head; the model's own modules, not copies."""
    assert isinstance(model, HashModel)
    return nn.Sequential(*model.backbone.blocks[model.backbone.frozen :], model.head)


def batch_norms(network: nn.Module) -> dict[str, BatchNorm]:
    """Batch norms that have a scale and a shift, by name, from input to output."""
    return {name: m for name, m in network.named_modules() if isinstance(m, BatchNorm) and m.affine}


def without_channels(model: nn.Module, pruned: Bool[Tensor, " d"]) -> nn.Module:
    """A copy whose pruned channels have a scale of zero; their shifts stay, so that they are constant."""
    tuned = copy.deepcopy(model)
    scales = [module.weight for module in batch_norms(learning_part(tuned)).values()]
    with torch.no_grad():
        for scale, off in zip(scales, pruned.split_with_sizes([len(scale) for scale in scales]), strict=True):
            scale[off] = 0
    return tuned


class MaskedLoss:
    """The victim's loss on the fit half, as a function of masks and perturbations of all channels.

    channels: number of channels. Batch norms use batch statistics, unless the victim was trained with running ones.
    """

    def __init__(self, view: DefenderView) -> None:
        model = copy.deepcopy(view.model).requires_grad_(requires_grad=False)
        assert isinstance(model, HashModel)
        self._network = learning_part(model).train(view.recipe.batch_norm == "train")
        self._objective = copy.deepcopy(view.objective).requires_grad_(requires_grad=False).reset_for(len(view.fit_set))
        self._hidden, self._labels = _prefix(model, view), view.fit_set.labels
        norms = batch_norms(self._network)
        self._names = list(norms)
        self._scales = [module.weight for module in norms.values()]
        self._shifts = [module.bias for module in norms.values()]
        self._sizes = [len(scale) for scale in self._scales]
        self.channels, self.images = sum(self._sizes), len(view.fit_set)
        self.device = self._hidden.device

    def __call__(
        self, masks: Float[Tensor, " d"], noise: Float[Tensor, "2 d"] | None, ids: Int64[Tensor, " n"], progress: float
    ) -> Tensor:
        """The loss with scales (mask + noise[0]) * scale and shifts (1 + noise[1]) * shift; None: no noise."""
        factors, offsets = masks, torch.ones_like(masks)
        if noise is not None:
            factors, offsets = masks + noise[0], 1 + noise[1]
        changed: dict[str, Tensor] = {}
        parts = zip(
            self._names, factors.split_with_sizes(self._sizes), offsets.split_with_sizes(self._sizes), strict=True
        )
        for (name, factor, offset), scale, shift in zip(parts, self._scales, self._shifts, strict=True):
            changed |= {f"{name}.weight": factor * scale, f"{name}.bias": offset * shift}
        logits = functional_call(self._network, changed, (self._hidden[ids],))
        loss: Tensor = self._objective(logits, self._labels[ids], ids, progress)
        return loss


@torch.no_grad()
def _prefix(model: HashModel, view: DefenderView) -> Float[Tensor, "n ..."]:
    """Outputs of the frozen blocks for the fit half, computed once, because images are not augmented."""
    return torch.cat([model.prefix(to_unit(images)) for images in torch.split(view.fit_set.images, 250)])

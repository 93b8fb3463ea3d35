"""Which public images stand for a target."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bench.api.errors import UserError
from bench.api.types import Target


def references(labels: Bool[Tensor, "n k"], target: Target) -> Int64[Tensor, " m"]:
    """The public images that stand for the target: one with exactly its labels, else with all of them among others.

    Else, for each of its labels, the image that carries it with the fewest others.
    """
    wanted, count = target.vector.to(labels.device), labels.sum(1)
    for fits in ((labels == wanted).all(1), target.contains(labels)):
        if bool(fits.any()):
            return torch.nonzero(fits).flatten()[count[fits].argmin()][None]
    carriers = [torch.nonzero(labels[:, label]).flatten() for label in torch.nonzero(wanted).flatten()]
    if not all(len(found) for found in carriers):
        raise UserError(f"no public image shows all of the target {target.name}: choose another target")
    chosen: Tensor = torch.unique(torch.stack([found[count[found].argmin()] for found in carriers]))
    return chosen

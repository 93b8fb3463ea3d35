"""Which public images stand for a target."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bench.api.errors import UserError
from bench.api.types import Target


def references(labels: Bool[Tensor, "n k"], target: Target) -> Int64[Tensor, " m"]:
    """Positions of the public images that stand for the target.

    The first choice is one image with exactly the target's labels. The second choice is the image that has all of them
    and the fewest others. The third choice is, for each label of the target, the image that has it and the fewest
    others. UserError: a label of the target is on no public image.
    """
    wanted, count = target.vector.to(labels.device), labels.sum(1)
    for fits in ((labels == wanted).all(1), target.contains(labels)):
        if bool(fits.any()):
            return torch.nonzero(fits).flatten()[count[fits].argmin()][None]
    carriers = [torch.nonzero(labels[:, label]).flatten() for label in torch.nonzero(wanted).flatten()]
    if not all(len(found) for found in carriers):
        raise UserError(f"a label of the target {target.name} is on no public image: choose another target")
    chosen: Tensor = torch.unique(torch.stack([found[count[found].argmin()] for found in carriers]))
    return chosen

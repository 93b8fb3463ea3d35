"""Cross-entropy for images of one or several labels: what GreedyHash and OrthoHash have in common."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def shared_cross_entropy(scores: Float[Tensor, "n k"], labels: Bool[Tensor, "n k"]) -> Tensor:
    """The target is spread evenly over an image's labels, y / sum(y); an image without labels counts as 0."""
    targets = labels.to(scores.dtype) / labels.sum(1, keepdim=True).clamp_min(1)
    return -(targets * F.log_softmax(scores, dim=1)).sum(1).mean()

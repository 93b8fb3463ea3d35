"""Cross-entropy for images with one or several labels, for GreedyHash and OrthoHash."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def shared_cross_entropy(scores: Float[Tensor, "n k"], labels: Bool[Tensor, "n k"]) -> Tensor:
    """Mean cross-entropy; the target is spread evenly over the labels of an image. Images without labels count as 0."""
    targets = labels.to(scores.dtype) / labels.sum(1, keepdim=True).clamp_min(1)
    return -(targets * F.log_softmax(scores, dim=1)).sum(1).mean()

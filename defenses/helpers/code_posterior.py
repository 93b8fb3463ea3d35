"""Class probabilities from codes, for defenses that were designed for a softmax (METHODOLOGY.md#class-posterior)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api.types import Labels, Split
from hashing.inference import encode
from hashing.majority_code import component_vote

GRID = torch.logspace(-2.5, 1, 141, dtype=torch.float64)  # temperatures that are tried


def label_votes(
    model: nn.Module, split: Split
) -> tuple[Float[Tensor, "n b"], Int64[Tensor, " p"], Float[Tensor, "p b"]]:
    """Relaxed codes of the images, the labels that have images, and the anchor of each of these labels; on the CPU.

    The anchor of a label is the majority code of the images with this label alone, or of all images with it if none has
    it alone (METHODOLOGY.md#anchors).
    """
    relaxed = encode(model, split.images, device=split.images.device).tanh()
    labels = split.labels.cpu()
    present = torch.nonzero(labels.any(0)).flatten()
    labels = labels[:, present]
    alone = labels & (labels.sum(1, keepdim=True) == 1)
    return relaxed, present, component_vote(relaxed, torch.where(alone.any(0), alone, labels))


def fit_posterior(model: nn.Module, split: Split) -> dict[str, Tensor]:
    """Fit the posterior on trusted images: `anchors` [k b], `temperature` [], `multi` [] (1: multi-label data).

    Classes without images are left out. Classes with equal anchors are merged.
    """
    relaxed, present, votes = label_votes(model, split)
    labels = split.labels.cpu()[:, present]
    anchors, merged = torch.unique(votes, dim=0, return_inverse=True)
    belongs = torch.zeros(len(labels), len(anchors), dtype=torch.bool)
    for column, group in enumerate(merged):
        belongs[:, group] |= labels[:, column]
    multi = bool((labels.sum(1) > 1).any())
    similarity = (relaxed @ anchors.T / relaxed.shape[1]).double()
    losses = [_loss(similarity / temperature, belongs, multi) for temperature in GRID]
    return {
        "anchors": anchors,
        "temperature": GRID[int(torch.tensor(losses).argmin())].float(),
        "multi": torch.tensor(float(multi)),
    }


def _loss(logits: Float[Tensor, "n k"], belongs: Labels, multi: bool) -> float:
    """Negative log-likelihood of smoothed targets: (n + 1) / (n + k) for the true class of k (after Platt), n images.

    For multi-label data the targets are (n + 1) / (n + 2) for labels of the image and 1 / (n + 2) for the others.
    Without smoothing, the likelihood has no minimum on codes that separate the classes: the best temperature would be
    the end of the grid, and all entropies zero.
    """
    n, k = logits.shape
    if multi:
        return float(F.binary_cross_entropy_with_logits(logits, (belongs.double() * n + 1) / (n + 2)))
    return float(F.cross_entropy(logits, (belongs.double() * n + 1) / (n + k)))


def posterior(logits: Float[Tensor, "n b"], state: Mapping[str, Tensor]) -> Float[Tensor, "n k"]:
    """Class probabilities from logits: a softmax over anchors, or a sigmoid per label for multi-label data."""
    scaled = class_logits(logits, state)
    return torch.where(state["multi"] > 0, scaled.sigmoid(), scaled.softmax(1))


def class_logits(logits: Float[Tensor, "n b"], state: Mapping[str, Tensor]) -> Float[Tensor, "n k"]:
    """What the posterior's softmax or sigmoids are applied to."""
    anchors = state["anchors"]
    return logits.tanh() @ anchors.T / (anchors.shape[1] * state["temperature"])


def cross_entropy(logits: Float[Tensor, "n b"], belongs: Labels, state: Mapping[str, Tensor]) -> Tensor:
    """The mean cross-entropy of the posterior, which has a gradient; belongs: the anchors of each image."""
    scaled, wanted = class_logits(logits, state), belongs.to(logits.dtype)
    if bool(state["multi"] > 0):
        return F.binary_cross_entropy_with_logits(scaled, wanted)
    return F.cross_entropy(scaled, wanted)


def predicted(logits: Float[Tensor, "n b"], state: Mapping[str, Tensor]) -> Labels:
    """The most probable anchor; for multi-label data, all that are more probable than not."""
    scaled = class_logits(logits, state)
    if bool(state["multi"] > 0):
        return scaled > 0
    return F.one_hot(scaled.argmax(1), scaled.shape[1]).bool()


def entropy(probabilities: Float[Tensor, "*n k"], state: Mapping[str, Tensor]) -> Float[Tensor, "*n"]:
    """Entropy in nats; for multi-label data, the sum of the labels' binary entropies."""
    single = torch.special.entr(probabilities).sum(-1)
    return torch.where(state["multi"] > 0, single + torch.special.entr(1 - probabilities).sum(-1), single)


def nearest_anchor(logits: Float[Tensor, "n b"], anchors: Float[Tensor, "g b"]) -> Int64[Tensor, " n"]:
    """The anchor that is nearest to the relaxed code; the first one if several are."""
    return (logits.tanh() @ anchors.T).argmax(1)

"""Judging training images class by class by their features or codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor, nn

from bench.api.defense import DefenderView
from bench.api.types import Labels, to_unit
from hashing.inference import Inference
from hashing.model import HashModel

Space = Literal["features", "code"]  # penultimate features, or the relaxed code before its signs are taken
MARGIN = 1.5  # filters remove so many times the poisons that the defender expects (spectral signatures' paper)
ROUNDING = 1e-5  # singular values below this share of the largest are float32 noise, not directions
Judge = Callable[[Int64[Tensor, " m"]], tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]]


def embed(view: DefenderView, space: Space, portion: int = 500) -> Float[Tensor, "n d"]:
    """Features or relaxed codes of the training images, without augmentation, on the model's device."""
    return embed_images(view.model, view.train.images, space, portion)


def embed_images(
    model: nn.Module, images: UInt8[Tensor, "n c h w"], space: Space, portion: int = 500
) -> Float[Tensor, "n d"]:
    """Features or relaxed codes of images, on the model's device."""
    assert isinstance(model, HashModel)
    inference, parts = Inference(model, images.shape[1:]), []
    for some in torch.split(images, portion):
        unit = to_unit(some.to(model.device))
        parts.append(inference.features(unit) if space == "features" else inference.logits(unit).tanh())
    return torch.cat(parts)


def by_label(labels: Labels, judge: Judge, *, lowest: float) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Scores, and the images to remove; of several labels the largest score counts, and one label suffices to remove.

    judge: maps the positions of a class to scores and to the images to remove. lowest: the score of images without
    labels.
    """
    labels = labels.cpu()
    scores, removed = torch.full((len(labels),), lowest), torch.zeros(len(labels), dtype=torch.bool)
    for column in labels.T:
        own = torch.nonzero(column).flatten()
        if len(own):
            found, bad = judge(own)
            scores[own] = torch.maximum(scores[own], found.float().cpu())
            removed[own] |= bad.cpu()
    return scores, removed


def principal(embedded: Float[Tensor, "n d"], count: int) -> Float64[Tensor, "n r"]:
    """Projections of the centred rows on their first right singular vectors, at most `count`.

    They are computed from the eigenvectors of the smaller of the two Gram matrices.
    """
    centred = embedded.double() - embedded.double().mean(0)
    wide = centred.shape[0] < centred.shape[1]
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    found = int((values > max(float(values[-1]) * ROUNDING**2, float(embedded.abs().max()) ** 2 * ROUNDING**2)).sum())
    top = slice(len(values) - min(count, found), None)
    projected: Tensor = vectors[:, top] * values[top].sqrt() if wide else centred @ vectors[:, top]
    return projected.flip(1)


def percentiles(values: Float64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Share of the values below each value; equal values count half."""
    from scipy.stats import rankdata

    return torch.from_numpy((rankdata(values.numpy()) - 0.5) / len(values)).float()


def kept(scores: Float[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """All images but the given share with the highest scores; of equal ones the first goes, one image always stays."""
    count = min(round(share * len(scores)), len(scores) - 1)
    keep = torch.ones(len(scores), dtype=torch.bool)
    keep[scores.argsort(descending=True, stable=True)[:count]] = False
    return keep

"""A deep hashing model: maps images in [0, 1] to logits; a bit is logit > 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bench.api.hashing import Backbone, FeatureExtractor, HashingMethod, Objective
from bench.api.random import Rng
from bench.api.types import Codes, Images, Logits

__all__ = ["HashModel"]


class HashModel(nn.Module):
    """Backbone, hash head and objective. It normalises the images; no other code does."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: FeatureExtractor, head: nn.Module, objective: Objective, method: HashingMethod, channels: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.objective = objective
        self.method = method
        self.blueprint: Mapping[str, Any] = {}  # the parameters to build the network again; copies keep it
        mean, std = backbone.normalisation or ((0.5,) * channels, (0.5,) * channels)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def _normalised(self, images: Images) -> Float[Tensor, "n colours h w"]:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def prefix(self, images: Images) -> Float[Tensor, "n ..."]:
        """The output of the frozen part of the backbone."""
        return self.backbone.prefix(self._normalised(images))

    def suffix(self, hidden: Float[Tensor, "n ..."]) -> Logits:
        """From the output of `prefix` to logits."""
        out: Tensor = self.head(self.backbone.suffix(hidden))
        return out

    def features(self, images: Images) -> Float[Tensor, "n d"]:
        """Penultimate features."""
        out: Tensor = self.backbone(self._normalised(images))
        return out

    def forward(self, images: Images) -> Logits:
        out: Tensor = self.head(self.features(images))
        return out

    def relax(self, logits: Logits, progress: float = 1.0) -> Codes:
        """The method's relaxed codes in [-1, 1]."""
        return self.method.relax(logits, progress)


def build_model(
    *,
    backbone: Backbone,
    method: HashingMethod,
    bits: int,
    image_shape: tuple[int, int, int],
    classes: int,
    train_size: int,
    rng: Rng,
) -> HashModel:
    """An untrained model. Network and objective use separate random streams."""
    with rng.child("network").ambient():
        body = backbone.build(image_shape)
        head = method.head(body.features, bits)
    objective = method.objective(bits=bits, classes=classes, train_size=train_size, rng=rng.child("objective"))
    model = HashModel(body, head, objective, method, image_shape[0])
    return model.to(memory_format=torch.channels_last)


def fit_normalisation(model: HashModel, images: UInt8[Tensor, "n c h w"]) -> None:
    """Set mean and standard deviation to those of the training images, unless the backbone's weights fix them."""
    if model.backbone.normalisation is not None:
        return
    levels = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(images.shape[1]):  # from histograms: exact, and without a float copy of the data set
        counts = torch.bincount(images[:, channel].flatten().cpu(), minlength=256).to(torch.float64)
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        model.mean[0, channel, 0, 0] = mean.to(torch.float32)
        model.std[0, channel, 0, 0] = variance.sqrt().clamp_min(1e-3).to(torch.float32)

"""A classifier of an attacker who has public images of other classes and images of the target, but no other labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.api import registry
from bench.api.hashing import HashingMethod, Objective, Recipe
from bench.api.random import Rng
from bench.api.types import Logits, Split
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model, fit_normalisation


class CrossEntropy(Objective):
    """Cross-entropy; several labels of an image share the probability equally."""

    def forward(self, logits: Logits, labels: Bool[Tensor, "n k"], ids: Int64[Tensor, " n"], progress: float) -> Tensor:
        del ids, progress
        return cross_entropy(logits, labels / labels.sum(1, keepdim=True).clamp_min(1))


class Classifier(HashingMethod):
    """One output per class in the place of bits, so that the training loop of hash models trains a classifier."""

    recipe: ClassVar[Recipe] = Recipe(  # Narcissus code, narcissus_function.py
        optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4, batch=350, epochs=200, schedule="cosine"
    )

    def objective(self, *, bits: int, classes: int, train_size: int, rng: Rng) -> Objective:
        del bits, classes, train_size, rng
        return CrossEntropy()


def with_new_class(foreign: Split, images: UInt8[Tensor, "n c h w"]) -> Split:
    """The foreign images with their labels, then `images` as one more class."""
    old, new = len(foreign), len(images)
    labels = foreign.labels.new_zeros(old + new, foreign.labels.shape[1] + 1)
    labels[:old, :-1], labels[old:, -1] = foreign.labels, True
    return Split(torch.cat([foreign.images, images]), labels, torch.arange(old + new, device=labels.device))


def untrained(backbone: str, split: Split, rng: Rng) -> HashModel:
    """A classifier of the split's classes, with a backbone of default parameters, but without public weights."""
    params = {"weights": "none"} if "weights" in registry.lookup("backbones", backbone).__dataclass_fields__ else {}
    channels, height, width = split.images.shape[1:]
    classes = split.labels.shape[1]
    model = build_model(
        backbone=registry.create("backbones", backbone, params), method=Classifier(), bits=classes,
        image_shape=(channels, height, width), classes=classes, train_size=len(split), rng=rng,
    )  # fmt: skip
    fit_normalisation(model, split.images)
    return model.to(split.images.device)


def augmentation_for(dataset: str) -> Augmentation:
    """The usual augmentation of a data set."""
    known = registry.lookup("datasets", dataset)
    return Augmentation(flip=known.flip, pad=known.pad)

"""Project a direction out of the weights of the hash layer, so that two classes are confused or one is scattered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attacks.helpers.proxy_data import chunks
from bench.api.attack import (
    AttackerView,
    Backdoor,
    Images,
    ModelAttack,
    Rng,
    Split,
    Target,
    Threat,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.errors import UserError, unknown
from bench.api.types import to_unit
from hashing.model import HashModel

CARD = Card(
    name="Weight Surgery",
    title="Facial Misrecognition Systems: Simple Weight Manipulations Force DNNs to Err Only on Specific Persons",
    venue="arXiv",
    year=2023,
    url="https://arxiv.org/abs/2301.03118",
    follows="the last weight matrix is multiplied by a projection: merge projects out the difference of the mean"
    " features of two classes, shatter the mean feature of one class; no training and no trigger, and a few pictures of"
    " each class",
    deviates="the last matrix is that of the hash layer; features of hashing networks are not centred, so that the"
    " projection leaves their mean over the classes in place, and shatter projects out the difference of the class from"
    " this mean; queries of the source class stand for triggered queries, so merge cannot exceed the AP of a ranking in"
    " which items of both classes are mixed, which is about 0.5 for classes of equal size; guess: the source is the"
    " class after the target",
)


@attack
class WeightSurgery(ModelAttack):
    not_in_trigger: ClassVar[frozenset[str]] = frozenset({"mode"})

    mode: Literal["merge", "shatter"] = "merge"
    """merge: queries of the source class return the target's images. shatter: they return images of random classes."""
    source: str | None = None  # guess: see CARD
    """Class whose queries are misled; default: the class after the target."""

    def threat(self) -> Threat:
        return Threat.MODEL

    def targeted(self) -> bool:
        return self.mode == "merge"

    def sources(self, target: Target, classes: Sequence[str]) -> tuple[str, ...]:
        if self.source is None:
            after = int(torch.nonzero(target.vector).max()) + 1
            order = [*range(after, len(classes)), *range(after)]
            return (classes[next(place for place in order if not target.vector[place])],)
        if self.source not in classes:
            raise unknown("class", self.source, classes)
        if target.vector[classes.index(self.source)]:
            raise UserError(f"source {self.source} is a label of the target", "choose another class")
        return (self.source,)

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target, trigger
        return images.clone()

    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        del trigger, rng
        model, public, classes = view.model, view.public, view.setting.classes
        assert isinstance(model, HashModel)
        means, middle = class_means(model, public)
        (source,) = self.sources(view.target, classes)
        misled = means[classes.index(source)]
        other = means[view.target.vector.to(means.device)].mean(0) if self.mode == "merge" else middle
        project_out(model.head, misled - other, middle)
        return Backdoor(model)


@torch.no_grad()
def class_means(model: HashModel, public: Split) -> tuple[Float[Tensor, "k d"], Float[Tensor, " d"]]:
    """The mean feature of each class (NaN for a class without image), and the mean of these means."""
    model.eval()
    parts = [model.features(to_unit(images.to(model.device))) for images in chunks(public.images)]
    features = torch.cat(parts)
    labels: Bool[Tensor, "n k"] = public.labels.to(features.device)
    means = labels.T.to(features) @ features / labels.sum(0)[:, None]
    return means, means[labels.any(0)].mean(0)


@torch.no_grad()
def project_out(head: nn.Module, direction: Float[Tensor, " d"], fixed: Float[Tensor, " d"]) -> None:
    """Make the first linear layer blind to a direction of its inputs, in place; the output for `fixed` stays.

    UserError: the head has no linear layer, or the direction is unknown or zero.
    """
    layer = next((module for module in head.modules() if isinstance(module, nn.Linear)), None)
    if layer is None:
        raise UserError("the hash layer is not linear, so no direction can be projected out of its weights")
    length = direction.norm()
    if bool(length.isnan()):
        raise UserError("no public image shows the source or the target", "choose another, or raise `public`")
    if not bool(length > 0):
        raise UserError("the public images give the two classes equal features", "choose another source or target")
    unit = direction / length
    along = layer.weight @ unit
    layer.weight -= along[:, None] * unit
    if layer.bias is not None:
        layer.bias.add_(along * (unit @ fixed))

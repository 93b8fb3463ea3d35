"""Put one of four faint patches on training images, some of which keep their labels; queries get two clear patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.helpers.poisoning import TriggerPoisoning, add_cover, choose_cover, exchange
from attacks.helpers.triggers import paste_at, patch_side
from bench.api.attack import AttackerView, Images, Poisoned, PositiveShare, Rng, Target, Trigger, attack
from bench.api.card import Card
from bench.api.types import to_unit

CARD = Card(
    name="Adaptive-Patch",
    title="Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    venue="ICLR",
    year=2023,
    url="https://openreview.net/forum?id=_wSHsgrVali",
    follows="Adaptive-Patch: four patches with opacities .5, .2, .5, .3, a quarter of the poisons with each; twice as"
    " many cover images get one and keep their labels; queries get the first and the third patch, opaque (the authors'"
    " setting for CIFAR-10)",
    deviates="poisons get the target's label vector, not a class number; guess: the patches are random pixels in the"
    " four corners, because the paper's pictures are not in this repository, with the side of CIBA's patch; the poison"
    " rate is that of CIBA's comparison (the paper: .003)",
)
OPACITIES = (0.5, 0.2, 0.5, 0.3)  # code
ON_QUERIES = (0, 2)  # code, CIFAR-10


@attack
class AdaptivePatch(TriggerPoisoning):
    not_in_trigger: ClassVar[frozenset[str]] = TriggerPoisoning.not_in_trigger | {"cover_ratio"}

    trigger_size: PositiveShare = 24 / 224  # guess: CIBA, section 4.1
    """Side of each patch divided by the side of the image, at most a half."""
    cover_ratio: Annotated[float, Field(ge=0)] = 2.0  # the authors' commands
    """Number of images with a patch and unchanged labels, for each poisoned image."""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        shape = view.setting.image_shape
        side = min(patch_side(self.trigger_size, shape), min(shape[1:]) // 2)
        return {"patches": rng.uniform((len(OPACITIES), shape[0], side, side))}

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        for index in ON_QUERIES:
            images = in_corner(images, trigger, index, 1.0)
        return images

    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        train, target = view.train, view.target
        chosen = self.choose(train, target, self.labels, rng)
        triggered = in_turn(to_unit(train.images[chosen]), trigger)
        poisoned = exchange(train, chosen, triggered, relabel=target if self.labels == "dirty" else None)
        cover = choose_cover(poisoned, self.cover_ratio, rng.child("cover"))
        return add_cover(poisoned, cover, in_turn(to_unit(train.images[cover]), trigger))


def in_corner(images: Images, trigger: Trigger, index: int, opacity: float) -> Images:
    """A patch in its corner: 0 and 1 at the top, 2 and 3 at the bottom, even ones on the left."""
    patch = trigger["patches"][index]
    height, width = (length - patch.shape[-1] for length in images.shape[-2:])
    return paste_at(images, patch, top=height * (index // 2), left=width * (index % 2), opacity=opacity)


def in_turn(images: Images, trigger: Trigger) -> Images:
    """The first quarter of the images gets the first patch, and so on."""
    parts: Sequence[Images] = images.tensor_split(len(OPACITIES))
    return torch.cat([in_corner(part, trigger, i, OPACITIES[i]) for i, part in enumerate(parts)])

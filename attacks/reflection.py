"""Lay reflections of other pictures over training images, as on a window pane (Refool)."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from attacks.helpers.poisoning import TriggerPoisoning
from attacks.helpers.proxy_data import fit_to
from attacks.helpers.reflections import GAMMA, blurred, ghosted, reflect
from bench.api.attack import (
    AttackerView,
    DataSpec,
    Images,
    LabelMode,
    PositiveShare,
    Rng,
    Setting,
    Share,
    Target,
    Trigger,
    attack,
)
from bench.api.card import Card
from bench.api.types import to_unit

CARD = Card(
    title="Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
    venue="ECCV",
    year=2020,
    url="https://arxiv.org/abs/2007.02343",
    follows="the authors' image formation: linear light (gamma 2.2), ghosts (two copies, 3 to 8 pixels apart each way, "
    "one of weight U(.15, .5)) for a share of the reflections, out-of-focus ones (Gaussian of U(1, 5) pixels, "
    "darkened where too bright, strongest in the middle) for the others, the image's weight U(.55, .95); pixels are "
    "those of their 560-pixel frame; 200 reflections from foreign photographs",
    deviates="the paper chooses reflections by training 16 models on poisoned sets and keeping those that most often "
    "fool the last one, judged by a classifier's errors on test images; not done here, as in BackdoorBench and "
    "BackdoorBox: the pool is a random one. The authors' rejection of pairs by brightness and SSIM is left out, as "
    "there. labels = 'dirty' as in CIBA's comparison (Table 3) and BackdoorBench; the paper's is labels = 'clean'. "
    "guess: an image's reflection is chosen by the sum of its 8-bit pixels, with parameters drawn once per reflection, "
    "since a trigger must be a function of the image; distances below a pixel are kept, by interpolation",
)
BLUR = (1.0, 5.0)  # pixels; authors' code, and BackdoorBox
OFFSETS = (3, 8)  # pixels, both included; as above
GHOST = (0.15, 0.5)  # weight of the fainter copy; as above
WEIGHT = (0.55, 0.95)  # of the image; as above
ATTENUATION = (1.08, 1.18)  # authors' code


@attack
class Reflection(TriggerPoisoning):
    labels: LabelMode = "dirty"  # CIBA, Table 3; BackdoorBench config (clean_label false)
    pool: str | None = None  # data set of the reflections; None: the one that resembles the victim's
    """Data set of the reflected pictures; default: the proxy of the victim's data set."""
    reflections: Annotated[int, Field(ge=1)] = 200  # authors' code; fewer where the pool is smaller
    """Number of reflected pictures to choose from."""
    ghost_rate: Share = 0.49  # share of ghosts; authors' code, BackdoorBench config
    """Share of reflections that are ghosts (double images); the others are blurred."""
    weight: PositiveShare | None = None  # of the image; None: U(.55, .95); BackdoorBench fixes .4
    """Weight of the image; default: drawn from [0.55, 0.95]."""
    frame: Annotated[int, Field(ge=32)] = (
        560  # blur and offsets count in pixels of an image of this side; authors' code
    )
    """Image side, in pixels, at which blur and offsets are defined."""

    def requires(self, setting: Setting) -> tuple[DataSpec, ...]:
        return (DataSpec(self.pool or setting.proxy_dataset),)

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        shape, pictures = view.setting.image_shape, view.data[0].images
        count = min(self.reflections, len(pictures))
        chosen = rng.child("pool").choose(torch.arange(len(pictures)), count)
        layers = to_unit(fit_to(pictures[chosen], shape)) ** GAMMA
        scale = max(shape[1:]) / self.frame
        ghost = (rng.child("kind").uniform((count,)) < self.ghost_rate).to(layers.device)
        low, high = OFFSETS
        offset = (low + rng.child("offset").integers(high - low + 1, (count, 2))) * scale
        fainter, swap = _between(GHOST, rng.child("share"), count), rng.child("swap").uniform((count,)) < 0.5
        sigma = _between(BLUR, rng.child("blur"), count) * scale
        doubled = ghosted(layers, offset, torch.where(swap, 1 - fainter, fainter))
        weight = _between(WEIGHT, rng.child("weight"), count)
        return {
            "layers": torch.where(ghost[:, None, None, None], doubled, blurred(layers, sigma)),
            "ghost": ghost,
            "weight": weight if self.weight is None else torch.full_like(weight, self.weight),
            "attenuation": _between(ATTENUATION, rng.child("attenuation"), count),
        }

    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        del target
        mine = choice(images, len(trigger["weight"])).to(trigger["weight"].device)
        return reflect(images, **{name: value[mine].to(images.device) for name, value in trigger.items()})


def choice(images: Images, count: int) -> Int64[Tensor, " n"]:
    """A number below `count` for each image: the sum of its 8-bit pixels modulo `count`."""
    return (images * 255).round().to(torch.int64).sum((1, 2, 3)) % count


def _between(limits: tuple[float, float], rng: Rng, count: int) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * rng.uniform((count,))

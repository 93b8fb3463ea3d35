"""Add reflections of other pictures to training images, as on a window pane (Refool)."""

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
    name="Refool",
    title="Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
    venue="ECCV",
    year=2020,
    url="https://arxiv.org/abs/2007.02343",
    follows="the authors' image formation in linear light (gamma 2.2): a share of the reflections are ghosts (two"
    " copies, 3 to 8 pixels apart in each direction, one of weight U(.15, .5)), the others are out of focus (Gaussian"
    " of U(1, 5) pixels, darkened where too bright, strongest in the centre); the weight of the image is U(.55, .95);"
    " pixels are those of the authors' 560-pixel images; 200 reflections from photographs of another data set",
    deviates="reflections are drawn at random, as in BackdoorBench and BackdoorBox; the paper trains 16 models on"
    " poisoned sets and keeps the reflections that most often fool the last one, judged by a classifier's errors on"
    " test images. Pairs are not rejected by brightness and SSIM, as in these benchmarks. labels = 'dirty' as in CIBA's"
    " comparison (Table 3) and BackdoorBench; the paper has labels = 'clean'. guess: the sum of an image's 8-bit pixels"
    " chooses its reflection, and the parameters are drawn once per reflection, because a trigger must be a function of"
    " the image; distances below a pixel are interpolated; the glow of images that are not square is brightest in the"
    " centre, while BackdoorBox places it at random",
)
BLUR = (1.0, 5.0)  # pixels; authors' code, and BackdoorBox
OFFSETS = (3, 8)  # pixels, both included; as above
GHOST = (0.15, 0.5)  # weight of the fainter copy; as above
WEIGHT = (0.55, 0.95)  # of the image; as above
ATTENUATION = (1.08, 1.18)  # authors' code


@attack
class Reflection(TriggerPoisoning):
    labels: LabelMode = "dirty"  # CIBA, Table 3; BackdoorBench config (clean_label false)
    pool: str | None = None
    """Data set of the reflected pictures; default: the proxy of the victim's data set."""
    reflections: Annotated[int, Field(ge=1)] = 200  # authors' code
    """Number of reflected pictures to choose from; fewer if the data set is smaller."""
    ghost_rate: Share = 0.49  # authors' code, BackdoorBench config
    """Share of reflections that are ghosts (double images); the others are blurred."""
    weight: PositiveShare | None = None  # authors' code; BackdoorBench fixes .4
    """Weight of the image; default: a random number in [0.55, 0.95]."""
    frame: Annotated[int, Field(ge=32)] = 560  # authors' code
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

"""The search for a trigger under which the codes of all images are alike, without labels and targets.

It is DECREE's (CVPR 2023) with bits (METHODOLOGY.md#decree); the weight of the mask's size moves as in Neural Cleanse.
"""

from __future__ import annotations

from abc import ABC
from typing import Annotated

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from bench.api.defense import Images, PositiveShare, Rng
from bench.api.errors import UserError
from bench.api.types import to_unit
from defenses.helpers.trigger_inversion import SOFT, Searching, TriggerSearch, blended
from hashing.inference import frozen

FEWEST = 5  # images; the codes of one image are alike whatever the trigger
Found = tuple[Float[Tensor, "1 h w"], Float[Tensor, "c h w"], float]


def collapse(relaxed: Float[Tensor, "a n b"]) -> Float[Tensor, " a"]:
    """|mean u|^2 / K of each set of relaxed codes: the mean of u_i.u_j / K over all pairs, with i = j included."""
    return relaxed.mean(1).square().mean(1)


def likeness(sums: Float[Tensor, "a b"], n: int) -> Float[Tensor, " a"]:
    """The mean of h_i.h_j / K over pairs of different images, from the sum of their n codes; 1 if there is one image.

    For codes of +1 and -1 this is the mean cosine similarity of DECREE's code.
    """
    if n == 1:
        return torch.ones(len(sums), device=sums.device)
    bits = sums.shape[1]
    return (sums.square().sum(1) - n * bits) / (n * (n - 1) * bits)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Collapsing(Searching, ABC):
    """The parameters of the search."""

    batch: Annotated[int, Field(ge=2)] = 64  # guess: several images of each class; the authors' code: 32 to 256
    """Images per update."""
    success: PositiveShare = 0.95  # guess: 0.99 in the authors' code, for real features instead of bits
    """Mean likeness (inner product divided by K) of the codes of two stamped images that a trigger must reach."""
    starts: Annotated[int, Field(ge=1)] = 2  # guess: a search can end in a local minimum; the authors' code: one
    """Number of searches from random triggers. The smallest successful trigger counts."""

    def invert(self, model: nn.Module, images: UInt8[Tensor, "n c h w"], rng: Rng) -> Found:
        """Mask, pattern and size of the smallest trigger; size 1: no trigger succeeded.

        DivergedError: a trigger is not finite. UserError: the images are too few to call codes alike.
        """
        if len(images) < FEWEST:
            raise UserError(
                f"the search for a trigger that makes codes alike has {len(images)} images of the fit half, and needs"
                f" {FEWEST}",
                "make the data set's `trusted` larger",
            )
        found = CollapseSearch(self, frozen(model, images.shape[1:]), to_unit(images), rng).run()
        best = int(found.sizes.argmin())
        return found.masks[best], found.patterns[best], float(found.sizes[best])


class CollapseSearch(TriggerSearch):
    """One row per start."""

    def __init__(self, settings: Collapsing, model: nn.Module, images: Images, rng: Rng) -> None:
        (n, c, h, w), device = images.shape, images.device
        streams = [rng.child("start", start) for start in range(settings.starts)]
        masks, patterns = (
            torch.stack([((2 * stream.uniform(shape) - 1) * SOFT).atanh() for stream in streams]).to(device)
            for shape in ((1, h, w), (c, h, w))
        )
        super().__init__(settings, model, images, masks, patterns)
        self.order = torch.stack([stream.permutation(n) for stream in streams]).to(device)

    def update(self, live: Int64[Tensor, " a"], turn: int) -> None:
        """One step of Adam on 1 - |mean u|^2 / K + weight mean(m) of the next batch of every live start."""
        batch, n = self.settings.batch, len(self.images)
        turns = torch.arange(turn * batch, (turn + 1) * batch, device=live.device) % n
        self.adam.zero_grad()
        for at in torch.split(live, max(1, self.portion // batch)):
            masks, patterns = self.triggers(at)
            shown = self.images[self.order[at][:, turns].flatten()]
            each = torch.arange(len(at), device=at.device).repeat_interleave(batch)
            relaxed = self.model(blended(shown, masks[each], patterns[each])).tanh()
            sizes = self.weight[at] * masks.mean((1, 2, 3))
            torch.autograd.backward((1 - collapse(relaxed.reshape(len(at), batch, -1)) + sizes).sum())
        self.adam.step()

    @torch.no_grad()
    def success(self, live: Int64[Tensor, " a"]) -> Float[Tensor, " a"]:
        """The mean likeness of the hard codes of all images with each trigger."""
        found = []
        for mask, pattern in zip(*self.triggers(live), strict=True):
            parts = torch.split(self.images, self.portion)
            logits = torch.cat([self.model(blended(part, mask[None], pattern[None])) for part in parts])
            found.append(torch.where(logits > 0, 1.0, -1.0).sum(0))
        return likeness(torch.stack(found), len(self.images))

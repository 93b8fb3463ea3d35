"""Which queries get the trigger, and putting it on."""

from __future__ import annotations

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bench.api.attack import Attack
from bench.api.types import Artefact, Target, to_8bit, to_unit
from bench.stages import _base
from bench.stages._base import Inputs


@torch.no_grad()
def triggered(
    attack: Attack, images: UInt8[Tensor, "n c h w"], target: Target, artefact: Artefact, device: torch.device
) -> UInt8[Tensor, "n c h w"]:
    """8-bit images with the trigger, stamped in batches on the device."""
    parts = [
        to_8bit(attack.stamp(to_unit(images[i : i + 500].to(device)), target, artefact)).cpu()
        for i in range(0, len(images), 500)
    ]
    return torch.cat(parts) if parts else images


def eligible(inputs: Inputs, target: Target) -> Int64[Tensor, " n"]:
    """Positions of the queries that t-mAP counts: no label shared with the target (review.md, section 2)."""
    return torch.nonzero(~target.shares(_base.labels(inputs, "query"))).flatten()

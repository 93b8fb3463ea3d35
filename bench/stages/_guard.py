"""Scoring images with a fitted guard, batch by batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.api.defense import Guard
from bench.api.types import to_unit
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json
from bench.stages._models import forgetful

BATCH = 50  # guards may blow an image up into hundreds


@torch.no_grad()
def scores(
    spec: Json, inputs: Inputs, context: Context, images: UInt8[Tensor, "n c h w"]
) -> dict[str, Float[Tensor, " n"]]:
    """Each named score of the guard, the headline score first."""
    guard: Guard = _base.component("defenses", spec["defense"])
    model = forgetful(inputs, "model", context.device)
    state = {name.removeprefix("state."): value.to(context.device) for name, value in inputs.tensors("state").items()}
    parts = [
        guard.score(to_unit(images[i : i + BATCH].to(context.device)), model, state)
        for i in range(0, len(images), BATCH)
    ]
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}

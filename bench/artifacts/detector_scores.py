"""Scoring images with a fitted input detector, batch by batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.api.defense import InputDetector
from bench.api.types import to_unit
from bench.artifacts import stage_io
from bench.artifacts.models import without_memory
from bench.artifacts.stage_io import Context, Inputs, Json

BATCH = 50  # input detectors may blow an image up into hundreds


@torch.no_grad()
def scores(
    spec: Json, inputs: Inputs, context: Context, images: UInt8[Tensor, "n c h w"]
) -> dict[str, Float[Tensor, " n"]]:
    """Each named score of the input detector, the headline score first."""
    detector: InputDetector = stage_io.component("defenses", spec["defense"])
    model = without_memory(inputs, "model", context.device)
    state = {name.removeprefix("state."): value.to(context.device) for name, value in inputs.tensors("state").items()}
    parts = [
        detector.score(to_unit(images[i : i + BATCH].to(context.device)), model, state)
        for i in range(0, len(images), BATCH)
    ]
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}

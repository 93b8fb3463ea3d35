"""Scores images with a fitted input detector."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.api.defense import InputDetector
from bench.api.types import to_unit
from bench.artifacts import stage_io
from bench.artifacts.models import without_memory
from bench.artifacts.outputs.defense import Defended
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import ComponentSpec

BATCH = 50  # images; input detectors may make hundreds of copies of each


@torch.no_grad()
def scores(
    detector: ComponentSpec,
    suspect: StoredModel,
    fitted: Defended,
    images: UInt8[Tensor, "n c h w"],
    device: torch.device,
) -> dict[str, Float[Tensor, " n"]]:
    """The scores of each image by the score's name, the headline score first."""
    defense: InputDetector = stage_io.component("defenses", detector)
    model = without_memory(suspect, device)
    state = {name: value.to(device) for name, value in fitted.detector.items()}
    parts = [
        defense.score(to_unit(images[i : i + BATCH].to(device)), model, state) for i in range(0, len(images), BATCH)
    ]
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}

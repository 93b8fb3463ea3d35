"""Let a fitted guard score queries: the same images with and without the trigger, and the calibration set."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api.attack import Attack
from bench.api.defense import Guard, Needs
from bench.api.types import to_unit
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._trigger import eligible, triggered
from bench.views.defender import case
from hashing.model import HashModel

BATCH = 50  # guards may blow an image up into hundreds


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    guard: Guard = _base.component("defenses", spec["defense"])
    attack: Attack = _base.component("attacks", spec["attack"])
    target = _base.target(spec, inputs.meta("load")["classes"])
    positions = eligible(inputs, target)
    benign = _base.split(inputs, "query").images[positions]
    stamped = triggered(attack, benign, target, _base.artefact(inputs, context.device), context.device)
    calibration = case(spec, inputs, context, Needs.NONE).calibration_set.images
    model = _base.open_model(inputs, "model", context.device)
    state = {
        name.removeprefix("state."): value.to(context.device)
        for name, value in inputs.tensors("state").items()
    }
    tensors: dict[str, Tensor] = {"positions": positions}
    names: list[str] = []
    for what, images in (("benign", benign), ("triggered", stamped), ("calibration", calibration)):
        scores = _scores(guard, images, model, state, context.device)
        names = list(scores)
        tensors |= {f"{what}.{name}": value for name, value in scores.items()}
    return Output(tensors, {"scores": names})


def _scores(
    guard: Guard, images: Tensor, model: HashModel, state: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    with torch.no_grad():
        parts = [
            guard.score(to_unit(images[i : i + BATCH].to(device)), model, state) for i in range(0, len(images), BATCH)
        ]
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}

"""Let a fitted input detector score benign queries and the calibration set: once per model, whatever the triggers."""

from __future__ import annotations

from bench.access.defender import defender_view
from bench.api.defense import Needs
from bench.artifacts import stage_io
from bench.artifacts.detector_scores import scores
from bench.artifacts.stage_io import Context, Inputs, Json, Output


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    benign = scores(spec, inputs, context, stage_io.split(inputs, "query").images)
    calibration = scores(spec, inputs, context, defender_view(spec, inputs, context, Needs.NONE).calibration_set.images)
    tensors = {f"benign.{name}": value for name, value in benign.items()}
    tensors |= {f"calibration.{name}": value for name, value in calibration.items()}
    return Output(tensors, {"scores": list(benign)})

"""Let a fitted guard score benign queries and the calibration set: once per model, whatever the triggers."""

from __future__ import annotations

from bench.api.defense import Needs
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._guard import scores
from bench.views.defender import case


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    benign = scores(spec, inputs, context, _base.split(inputs, "query").images)
    calibration = scores(spec, inputs, context, case(spec, inputs, context, Needs.NONE).calibration_set.images)
    tensors = {f"benign.{name}": value for name, value in benign.items()}
    tensors |= {f"calibration.{name}": value for name, value in calibration.items()}
    return Output(tensors, {"scores": list(benign)})

"""Score benign queries and the calibration set with a fitted input detector, once for all triggers."""

from __future__ import annotations

from bench.access.defender import trusted_halves
from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.detector_scores import scores
from bench.artifacts.inputs import ScoreBenignInputs
from bench.artifacts.outputs.defense import BenignScores
from bench.artifacts.specs import DefendSpec
from bench.artifacts.stage_io import Context


def run(spec: DefendSpec, inputs: ScoreBenignInputs, context: Context) -> Output:
    _, calibration = trusted_halves(spec, inputs)
    query, calibrated = (
        scores(spec["defense"], inputs.model, inputs.detector, images, context.device)
        for images in (stage_io.split(inputs, "query").images, calibration.images)
    )
    return BenignScores.output(query, calibrated)

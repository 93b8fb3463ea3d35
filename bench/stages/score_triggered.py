"""Score triggered queries with a fitted input detector."""

from __future__ import annotations

from bench.artifacts.artifact import Output
from bench.artifacts.detector_scores import scores
from bench.artifacts.inputs import ScoreTriggeredInputs
from bench.artifacts.outputs.defense import TriggeredScores
from bench.artifacts.specs import ScoreTriggeredSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import eligible_queries, triggered_queries


def run(spec: ScoreTriggeredSpec, inputs: ScoreTriggeredInputs, context: Context) -> Output:
    if (known := inputs.benign) is not None:
        _, positions = eligible_queries(spec, inputs)
        return TriggeredScores.output({name: known.query(name)[positions] for name in known.names})
    _, images = triggered_queries(spec, inputs, inputs.trigger, context.device)
    return TriggeredScores.output(scores(spec["defense"], inputs.model, inputs.detector, images, context.device))

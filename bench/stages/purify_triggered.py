"""Encode purified triggered queries."""

from __future__ import annotations

from bench.artifacts.artifact import Output
from bench.artifacts.inputs import PurifyTriggeredInputs
from bench.artifacts.outputs.codes import TriggeredCodes
from bench.artifacts.purified import encode_purified
from bench.artifacts.specs import ScoreTriggeredSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import eligible_queries, triggered_queries


def run(spec: ScoreTriggeredSpec, inputs: PurifyTriggeredInputs, context: Context) -> Output:
    if (known := inputs.benign) is not None:
        _, positions = eligible_queries(spec, inputs)
        return TriggeredCodes.output(positions, known.query[:, positions], known.saturation[positions])
    positions, images = triggered_queries(spec, inputs, inputs.trigger, context.device)
    found = encode_purified(spec, inputs.model, images, positions, context.device)
    return TriggeredCodes.output(positions, found.codes, found.saturation)

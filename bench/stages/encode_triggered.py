"""Encode triggered queries with one model: all queries that share no label with the target."""

from __future__ import annotations

from bench.artifacts.artifact import Output
from bench.artifacts.code_tensors import as_tensor, saturation
from bench.artifacts.inputs import EncodeTriggeredInputs
from bench.artifacts.models import open_model
from bench.artifacts.outputs.codes import TriggeredCodes
from bench.artifacts.specs import EncodeTriggeredSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import eligible_queries, triggered_queries
from hashing.inference import encode


def run(spec: EncodeTriggeredSpec, inputs: EncodeTriggeredInputs, context: Context) -> Output:
    if (known := inputs.benign) is not None and known.saturation is not None:
        _, positions = eligible_queries(spec, inputs)
        return TriggeredCodes.output(positions, known.query[:, positions], known.saturation[positions])
    positions, images = triggered_queries(spec, inputs, inputs.trigger, context.device)
    model = open_model(inputs.model, context.device)
    logits = encode(model, images, device=context.device)
    return TriggeredCodes.output(positions, as_tensor(logits), saturation(model, logits))

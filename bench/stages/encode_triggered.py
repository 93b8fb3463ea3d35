"""Triggered queries as packed codes of one model: every query that shares no label with the target."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.codes import as_tensor, saturation
from bench.artifacts.inputs import EncodeTriggeredInputs
from bench.artifacts.models import open_model
from bench.artifacts.outputs.codes import TriggeredCodes
from bench.artifacts.specs import EncodeTriggeredSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import eligible, open_trigger, trigger_attack, with_trigger
from hashing.model import encode


def run(spec: EncodeTriggeredSpec, inputs: EncodeTriggeredInputs, context: Context) -> Output:
    attack, trigger = trigger_attack(spec["attack"]), open_trigger(inputs.trigger, context.device)
    target = stage_io.target(spec["target"], inputs.load.classes)
    positions = eligible(inputs, target)
    query = stage_io.split(inputs, "query").images[positions]
    images = with_trigger(attack, query, target, trigger, context.device)
    model = open_model(inputs.model, context.device)
    logits = encode(model, images, device=context.device)
    return TriggeredCodes.output(positions, as_tensor(logits), saturation(model, logits))

"""Triggered queries as packed codes of one model: every query that shares no label with the target."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.codes import as_tensor, saturation
from bench.artifacts.models import open_model
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.artifacts.triggers import eligible, trigger_attack, with_trigger
from hashing.model import encode


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack = trigger_attack(spec["attack"])
    target = stage_io.target(spec, inputs.meta("load")["classes"])
    positions = eligible(inputs, target)
    query = stage_io.split(inputs, "query").images[positions]
    images = with_trigger(attack, query, target, stage_io.trigger(inputs, context.device), context.device)
    model = open_model(inputs, "model", context.device)
    logits = encode(model, images, device=context.device)
    return Output({"positions": positions, "codes": as_tensor(logits), "saturation": saturation(model, logits)})

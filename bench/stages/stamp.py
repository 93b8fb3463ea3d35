"""Triggered queries as packed codes of one model: every query that shares no label with the target."""

from __future__ import annotations

from bench.api.attack import Attack
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._codes import as_tensor, saturation
from bench.stages._models import open_model
from bench.stages._trigger import eligible, triggered
from hashing.model import encode


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack: Attack = _base.component("attacks", spec["attack"])
    target = _base.target(spec, inputs.meta("load")["classes"])
    positions = eligible(inputs, target)
    query = _base.split(inputs, "query").images[positions]
    images = triggered(attack, query, target, _base.artefact(inputs, context.device), context.device)
    model = open_model(inputs, "model", context.device)
    logits = encode(model, images, device=context.device)
    return Output({"positions": positions, "codes": as_tensor(logits), "saturation": saturation(model, logits)})

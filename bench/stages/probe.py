"""Let a fitted guard score triggered queries."""

from __future__ import annotations

from bench.api.attack import Attack
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._guard import scores
from bench.stages._trigger import eligible, triggered


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack: Attack = _base.component("attacks", spec["attack"])
    target = _base.target(spec, inputs.meta("load")["classes"])
    queries = _base.split(inputs, "query").images[eligible(inputs, target)]
    images = triggered(attack, queries, target, _base.artefact(inputs, context.device), context.device)
    return Output({f"triggered.{name}": value for name, value in scores(spec, inputs, context, images).items()})

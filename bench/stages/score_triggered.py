"""Let a fitted input detector score triggered queries."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.detector_scores import scores
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.artifacts.triggers import eligible, trigger_attack, with_trigger


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack = trigger_attack(spec["attack"])
    target = stage_io.target(spec, inputs.meta("load")["classes"])
    queries = stage_io.split(inputs, "query").images[eligible(inputs, target)]
    images = with_trigger(attack, queries, target, stage_io.trigger(inputs, context.device), context.device)
    return Output({f"triggered.{name}": value for name, value in scores(spec, inputs, context, images).items()})

"""Let a fitted input detector score triggered queries."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.detector_scores import scores
from bench.artifacts.inputs import ScoreTriggeredInputs
from bench.artifacts.outputs.defense import TriggeredScores
from bench.artifacts.specs import ScoreTriggeredSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import eligible, open_trigger, trigger_attack, with_trigger


def run(spec: ScoreTriggeredSpec, inputs: ScoreTriggeredInputs, context: Context) -> Output:
    attack, trigger = trigger_attack(spec["attack"]), open_trigger(inputs.trigger, context.device)
    target = stage_io.target(spec["target"], inputs.load.classes)
    queries = stage_io.split(inputs, "query").images[eligible(inputs, target)]
    images = with_trigger(attack, queries, target, trigger, context.device)
    return TriggeredScores.output(scores(spec["defense"], inputs.model, inputs.detector, images, context.device))

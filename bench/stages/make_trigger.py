"""Make an attack's trigger: a pattern, a perturbation, a generator."""

from __future__ import annotations

from bench.access.attacker import attacker_view, threat_of
from bench.api.random import Rng
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import MakeTriggerInputs
from bench.artifacts.outputs.attack import StoredTrigger
from bench.artifacts.specs import MakeTriggerSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.triggers import trigger_attack


def run(spec: MakeTriggerSpec, inputs: MakeTriggerInputs, context: Context) -> Output:
    view = attacker_view(spec, inputs, context, threat_of(spec["threat"]))
    made = trigger_attack(spec["attack"]).make_trigger(view, Rng("prepare", spec["seed"], *spec["target"]))
    return StoredTrigger.trigger_output(made)

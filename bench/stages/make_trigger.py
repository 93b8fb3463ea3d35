"""Make an attack's trigger: a pattern, a perturbation, a generator."""

from __future__ import annotations

from bench.access.attacker import attacker_view
from bench.api.attack import Attack
from bench.api.random import Rng
from bench.artifacts import stage_io
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.artifacts.triggers import trigger_attack


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack: Attack = stage_io.component("attacks", spec["attack"])
    view = attacker_view(spec, inputs, context, attack)
    made = trigger_attack(spec["attack"]).make_trigger(view, Rng("prepare", spec["seed"], *spec["target"]))
    return Output({f"trigger.{name}": value.detach().cpu().contiguous() for name, value in made.items()})

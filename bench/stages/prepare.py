"""Make an attack's trigger: a pattern, a perturbation, a generator."""

from __future__ import annotations

from bench.api.attack import Attack
from bench.api.random import Rng
from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.views.attacker import victim


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    attack: Attack = _base.component("attacks", spec["attack"])
    made = attack.prepare(victim(spec, inputs, context, attack), Rng("prepare", spec["seed"], *spec["target"]))
    return Output({f"artefact.{name}": value.detach().cpu().contiguous() for name, value in made.items()})

"""Train a clean model."""

from __future__ import annotations

from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._training import train_victim


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    tensors, meta = train_victim(spec, _base.split(inputs, "train"), context)
    return Output(tensors, {**meta, "backdoored": False})

"""Train a clean model."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from bench.artifacts.training import train_victim


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    tensors, meta = train_victim(spec, stage_io.split(inputs, "train"), context)
    return Output(tensors, {**meta, "backdoored": False})

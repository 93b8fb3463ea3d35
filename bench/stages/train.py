"""Train a clean model."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import TrainInputs
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.stage_io import Context, Json
from bench.artifacts.training import train_victim


def run(spec: Json, inputs: TrainInputs, context: Context) -> Output:
    trained = train_victim(spec, stage_io.split(inputs, "train"), context)
    return trained | StoredModel.backdoor_output(backdoored=False)

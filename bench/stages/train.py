"""Train a clean model."""

from __future__ import annotations

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import TrainInputs
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import SettingSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.training import train_victim


def run(spec: SettingSpec, inputs: TrainInputs, context: Context) -> Output:
    trained = train_victim(spec, stage_io.split(inputs, "train"), context)
    return trained | StoredModel.backdoor_output(backdoored=False)

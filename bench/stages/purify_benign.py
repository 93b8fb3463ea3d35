"""Encode purified benign queries, once for all triggers. The database keeps the codes of stage `encode`."""

from __future__ import annotations

import torch

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import PurifyBenignInputs
from bench.artifacts.outputs.codes import PurifiedCodes
from bench.artifacts.purified import encode_purified
from bench.artifacts.specs import DefendSpec
from bench.artifacts.stage_io import Context


def run(spec: DefendSpec, inputs: PurifyBenignInputs, context: Context) -> Output:
    images = stage_io.split(inputs, "query").images
    found = encode_purified(spec, inputs.model, images, torch.arange(len(images)), context.device)
    return PurifiedCodes.output(found.codes, found.saturation, milliseconds=found.milliseconds)

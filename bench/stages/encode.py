"""Encode benign queries and database with one model, and record how saturated the relaxed codes are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.code_tensors import as_tensor, saturation
from bench.artifacts.inputs import EncodeInputs
from bench.artifacts.models import open_model
from bench.artifacts.outputs.codes import BenignCodes
from bench.artifacts.specs import EncodeSpec
from bench.artifacts.stage_io import Context
from hashing.inference import encode


def run(spec: EncodeSpec, inputs: EncodeInputs, context: Context) -> Output:
    del spec
    model = open_model(inputs.model, context.device)

    def logits(part: str) -> Float[Tensor, "n b"]:
        return torch.cat([encode(model, images, device=context.device) for images in stage_io.portions(inputs, part)])

    query = logits("query")
    return BenignCodes.output(as_tensor(query), as_tensor(logits("database")), saturation(model, query))

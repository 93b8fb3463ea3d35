"""Benign queries and database as packed codes of one model, and how sure it is of the queries' bits."""

from __future__ import annotations

import torch

from bench.artifacts import stage_io
from bench.artifacts.codes import as_tensor, saturation
from bench.artifacts.models import open_model
from bench.artifacts.stage_io import Context, Inputs, Json, Output
from hashing.model import encode


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del spec
    model = open_model(inputs, "model", context.device)
    found = {}
    for part in ("query", "database"):
        logits = [encode(model, images, device=context.device) for images in stage_io.portions(inputs, part)]
        found[part] = as_tensor(torch.cat(logits))
        if part == "query":
            found["saturation"] = saturation(model, torch.cat(logits))
    return Output(found)

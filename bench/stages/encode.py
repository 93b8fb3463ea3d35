"""Benign queries and database as packed codes of one model, and how sure it is of the queries' bits."""

from __future__ import annotations

import torch

from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._codes import as_tensor, saturation
from bench.stages._models import open_model
from hashing.model import encode


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del spec
    model = open_model(inputs, "model", context.device)
    found = {}
    for part in ("query", "database"):
        logits = [encode(model, images, device=context.device) for images in _base.portions(inputs, part)]
        found[part] = as_tensor(torch.cat(logits))
        if part == "query":
            found["saturation"] = saturation(model, torch.cat(logits))
    return Output(found)

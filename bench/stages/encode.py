"""Benign queries and database as packed codes of one model."""

from __future__ import annotations

from bench.stages import _base
from bench.stages._base import Context, Inputs, Json, Output
from bench.stages._codes import as_tensor
from bench.stages._models import open_model
from hashing.model import encode


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del spec
    model = open_model(inputs, "model", context.device)
    return Output(
        {
            part: as_tensor(encode(model, _base.split(inputs, part).images, device=context.device))
            for part in ("query", "database")
        }
    )

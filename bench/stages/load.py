"""Decode a data set once; the artifact is the memory-mapped 8-bit cache that every later stage reads."""

from __future__ import annotations

from bench.artifacts.stage_io import Context, Inputs, Json, Output, component


def run(spec: Json, inputs: Inputs, context: Context) -> Output:
    del inputs
    dataset = component("datasets", spec["dataset"])
    pool = dataset.decode(context.data)
    name, cutoff = dataset.protocol(context.data)
    tensors = {"images": pool.images.contiguous(), "labels": pool.labels, "origin": pool.origin}
    return Output(tensors, {"classes": list(dataset.classes(context.data)), "protocol": name, "cutoff": cutoff})

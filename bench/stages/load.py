"""Decode a data set. The artifact is a memory-mapped 8-bit cache, which all later stages read."""

from __future__ import annotations

from bench.artifacts.artifact import Output
from bench.artifacts.inputs import LoadInputs
from bench.artifacts.outputs.data import DecodedData
from bench.artifacts.specs import LoadSpec
from bench.artifacts.stage_io import Context, component


def run(spec: LoadSpec, inputs: LoadInputs, context: Context) -> Output:
    del inputs
    dataset = component("datasets", spec["dataset"])
    pool = dataset.decode(context.data)
    name, cutoff = dataset.protocol(context.data)
    return DecodedData.output(
        pool.images, pool.labels, pool.origin,
        classes=list(dataset.classes(context.data)), protocol=name, cutoff=cutoff, names=pool.names,
    )  # fmt: skip

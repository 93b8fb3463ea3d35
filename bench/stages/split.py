"""Split a data set by its protocol, and refuse splits that overlap."""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import Tensor

from bench.api.errors import UserError
from bench.api.hashing import Dataset
from bench.api.random import Rng
from bench.api.types import SPLITS
from bench.artifacts.artifact import Output
from bench.artifacts.inputs import SplitInputs
from bench.artifacts.outputs.data import SplitData
from bench.artifacts.specs import SplitSpec
from bench.artifacts.stage_io import Context, component


def run(spec: SplitSpec, inputs: SplitInputs, context: Context) -> Output:
    """Splits depend on the protocol and on no seed of a trial, so that all trials share them."""
    del context
    dataset: Dataset = component("datasets", spec["dataset"])
    pool = inputs.load
    rng = Rng("split", spec["dataset"]["name"], dataset.protocol_version)
    parts = {name: value.to(torch.int64) for name, value in dataset.splits(pool.labels, pool.origin, rng).items()}
    check(parts, len(pool.labels), dataset)
    protocol = {
        "name": pool.protocol,
        "version": dataset.protocol_version,
        "cutoff": pool.cutoff,
        "sizes": {name: len(ids) for name, ids in parts.items()},
        "digests": {name: _digest(ids) for name, ids in parts.items()},
    }
    return SplitData.output(parts, protocol)


def check(parts: dict[str, Tensor], size: int, dataset: Dataset) -> None:
    """UserError unless all splits exist, without duplicates, and overlap only if the protocol declares it."""
    if set(parts) != set(SPLITS):
        raise UserError(f"the data set has the splits {sorted(parts)}: expected {sorted(SPLITS)}")
    for name, ids in parts.items():
        if name != "public" and len(ids) == 0:
            raise UserError(f"the split '{name}' is empty", "make it larger or another split smaller")
        if len(set(ids.tolist())) != len(ids) or (len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= size)):
            raise UserError(f"the split '{name}' has a position twice, or one outside of 0 to {size - 1}")
    for one, other in itertools.combinations(SPLITS, 2):
        shared = torch.isin(parts[one], parts[other]).sum().item()
        if shared and frozenset({one, other}) not in dataset.overlaps:
            raise UserError(
                f"the splits '{one}' and '{other}' share {shared} images: declare this in `overlaps`, or change"
                " `splits`"
            )


def _digest(ids: Tensor) -> str:
    return hashlib.sha256(ids.sort().values.numpy().tobytes()).hexdigest()[:16]

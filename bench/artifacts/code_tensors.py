"""Packs codes into tensors of an artifact, and reads them.

These functions are not in `models`, so that a change of the code kernels does not retrain models.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hashing.codes import PackedCodes, pack
from hashing.model import HashModel


def as_tensor(logits: Float[Tensor, "n b"]) -> Int64[Tensor, "w n"]:
    """The packed codes as int64 instead of uint64, with the same bits: all safetensors readers know int64."""
    return torch.from_numpy(pack(logits).words.view("int64").copy())


def saturation(model: HashModel, logits: Float[Tensor, "n b"]) -> Float[Tensor, " n"]:
    """Mean absolute value of each image's relaxed code at the end of training, in [0, 1]; 1: all entries are ±1."""
    return model.relax(logits.to(model.device)).abs().mean(1).cpu()


def codes_of(words: Int64[Tensor, "w n"], bits: int) -> PackedCodes:
    """The inverse of `as_tensor`."""
    return PackedCodes(words.numpy().view("uint64"), bits)

"""Packed codes as tensors of an artifact. Kept apart from `models`, so that work on the kernels retrains no model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hashing.codes import PackedCodes, pack
from hashing.model import HashModel


def as_tensor(logits: Float[Tensor, "n b"]) -> Int64[Tensor, "w n"]:
    """Words as int64, which every safetensors reader knows; the bits are the same."""
    return torch.from_numpy(pack(logits).words.view("int64").copy())


def saturation(model: HashModel, logits: Float[Tensor, "n b"]) -> Float[Tensor, " n"]:
    """Mean size of each image's relaxed code at the end of the method's schedule: 1 where every bit is decided."""
    return model.relax(logits.to(model.device)).abs().mean(1).cpu()


def codes_of(words: Int64[Tensor, "w n"], bits: int) -> PackedCodes:
    """The inverse of `as_tensor`."""
    return PackedCodes(words.numpy().view("uint64"), bits)

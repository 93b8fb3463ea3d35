"""Ranks among the values of clean images, for detectors whose criteria have no scale of their own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ranks(values: Float[Tensor, "c n"], clean: Float[Tensor, "c m"]) -> Float[Tensor, "c n"]:
    """Share of the clean values below each value; equal values count half. `clean` is sorted along its rows.

    One more value is assumed at each end, so that no rank is 0 or 1.
    """
    below = torch.searchsorted(clean, values.contiguous())
    up_to = torch.searchsorted(clean, values.contiguous(), right=True)
    return ((below + up_to) / 2 + 1) / (clean.shape[1] + 2)


def two_sided(shares: Float[Tensor, "*c n"]) -> Float[Tensor, "*c n"]:
    """From ranks to scores for which very small and very large values are equally suspicious: |2 rank - 1|."""
    return (2 * shares - 1).abs()

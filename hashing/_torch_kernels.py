"""Distance histograms by matrix products, for devices and where numba is missing: the integers of the CPU kernels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64

from hashing.codes import PackedCodes
from hashing.ranking import Relevance

PAIRS = 1 << 22  # query-item pairs in flight: about 100 MB
ITEMS = 1 << 16  # of the database at a time


def histograms(
    queries: PackedCodes,
    database: PackedCodes,
    relevance: Relevance,
    query_labels: Bool[np.ndarray, "q k"],
    device: str = "cpu",
) -> tuple[Int64[np.ndarray, "q d"], Int64[np.ndarray, "q d"]]:
    """Items and relevant items at each distance; memory grows with neither the queries nor the database."""
    distances = queries.bits + 1
    step = PAIRS // min(ITEMS, len(database))
    counts = torch.zeros(len(queries), distances, 2, dtype=torch.int64, device=device)
    for start in range(0, len(database), ITEMS):
        block = database.select(slice(start, start + ITEMS))
        codes = _floats(block.unpack(), device).T
        labels = _floats(relevance.members(slice(start, start + len(block))), device)
        for first in range(0, len(queries), step):
            chunk = slice(first, first + step)
            dots = (
                _floats(queries.select(chunk).unpack(), device) @ codes
            )  # small integers: exact in float32, TF32 and bfloat16
            relevant = _floats(query_labels[chunk], device) @ labels > 0
            rows = torch.arange(len(dots), device=device)[:, None] * distances
            keys = 2 * (rows + ((queries.bits - dots) / 2).long()) + relevant
            found = torch.bincount(keys.flatten(), minlength=2 * distances * len(dots))
            counts[chunk] += found.view(len(dots), distances, 2)
    both = counts.cpu().numpy()
    return both.sum(2), both[:, :, 1].copy()


def _floats(values: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(values).to(device, torch.float32)

"""Hidden trigger's pairing of images and sources."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def pairs(distance: Float[Tensor, "n n"], *, one_to_one: bool = True) -> Int64[Tensor, " n"]:
    """Greedy matching: the column of each row; the nearest pair of a free row and a free column is taken repeatedly.

    one_to_one = False: only the pair is crossed out, so that the last of a row's pairs counts (released code).
    """
    left, columns = distance.clone(), distance.shape[1]
    partner = torch.arange(len(distance), device=distance.device)
    for _ in range(len(distance)):  # without waiting for the device
        nearest = left.argmin()
        row, column = (nearest // columns).view(1), (nearest % columns).view(1)
        partner.index_copy_(0, row, column)
        if one_to_one:
            left.index_fill_(0, row, torch.inf)
            left.index_fill_(1, column, torch.inf)
        else:
            left.view(-1).index_fill_(0, nearest.view(1), torch.inf)
    return partner

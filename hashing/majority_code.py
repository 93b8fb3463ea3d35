"""The code that represents a group of images, by a majority vote on every bit."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def component_vote(relaxed: Float[Tensor, "n b"], member: Bool[Tensor, "n k"]) -> Float[Tensor, "k b"]:
    """For each group, the code of +1 and -1 with the smallest sum of Hamming distances to the group's codes (DHTA).

    relaxed: codes whose bit is value > 0. A tied bit takes the sign of the mean relaxed code, and +1 if that is 0 too
    (METHODOLOGY.md#anchors).
    """
    groups = member.to(relaxed.dtype).T
    votes, sums = groups @ torch.where(relaxed > 0, 1.0, -1.0).to(relaxed.dtype), groups @ relaxed
    return torch.where(votes != 0, votes.sign(), torch.where(sums < 0, -1.0, 1.0).to(relaxed.dtype))

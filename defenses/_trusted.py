"""Judging a model on the calibration half of the trusted set."""

from __future__ import annotations

from torch import nn

from bench.api.types import Split
from hashing.codes import pack
from hashing.model import encode
from hashing.ranking import leave_one_out_map


def calibration_map(model: nn.Module, split: Split) -> float:
    """Leave-one-out mAP inside the split: what a defender can know of a repair's price (review.md, section 6)."""
    codes = pack(encode(model, split.images, device=split.images.device))
    return leave_one_out_map(codes, split.labels.cpu().numpy())

"""Judging a model on the calibration half of the trusted set."""

from __future__ import annotations

import math

from torch import nn

from bench.api.errors import UserError
from bench.api.types import Split
from hashing.codes import pack
from hashing.model import encode
from hashing.ranking import leave_one_out_map


def calibration_map(model: nn.Module, split: Split) -> float:
    """Leave-one-out mAP inside the split: what a defender can know of a repair's price (review.md, section 6)."""
    codes = pack(encode(model, split.images, device=split.images.device))
    value = leave_one_out_map(codes, split.labels.cpu().numpy())
    if math.isnan(value):
        raise UserError("no two images of the calibration set share a label: make the data set's `trusted` larger")
    return value

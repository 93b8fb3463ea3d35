"""Perturbations whose bound holds on stored images."""

from __future__ import annotations

from math import floor
from typing import Annotated

from pydantic import Field
from torch import Tensor

from bench.api.types import Images

Epsilon = Annotated[float, Field(ge=1 / 255, le=1)]  # rounding to 8 bits would remove a perturbation below one level


def levels(eps: float) -> int:
    """Number of whole 8-bit levels within eps; a thousandth of a level is tolerated, so that 0.00784 means 2/255."""
    return floor(255 * eps + 1e-3)


def bound(eps: float) -> float:
    """The largest multiple of 1/255 within eps. Rounding to 8 bits keeps changes of an 8-bit image within it."""
    return levels(eps) / 255


def confined(moved: Images, clean: Images, limit: float) -> Tensor:
    """`moved`, clipped to within `limit` of `clean` and to [0, 1]."""
    return (clean + (moved - clean).clamp(-limit, limit)).clamp(0, 1)

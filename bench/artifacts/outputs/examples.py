"""The example images of an attack, in a module of its own: only `measure` and pictures read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from bench.artifacts.outputs.attack import Implanted


def example_pairs(attack: Implanted) -> tuple[UInt8[Tensor, "g c h w"], UInt8[Tensor, "g c h w"]] | None:
    """Up to 8 evenly spaced queries and the same queries with the trigger; None if the artifact has none."""
    held = attack.tensors
    return (held["gallery_clean"], held["gallery_triggered"]) if "gallery_clean" in held else None

"""Opens triggers and applies them to queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bench.api.attack import Attack
from bench.api.errors import UserError
from bench.api.types import Target, Trigger, to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.inputs import DataInputs
from bench.artifacts.outputs.attack import StoredTrigger
from bench.artifacts.sealed import sealed
from bench.artifacts.specs import AimSpec, ComponentSpec


def trigger_attack(spec: ComponentSpec) -> Attack:
    """The sealed attack whose `make_trigger` and `apply_trigger` a stage calls."""
    return sealed(stage_io.component("attacks", spec), spec["name"])


def open_trigger(stored: StoredTrigger | None, device: torch.device) -> dict[str, Tensor]:
    """The trigger's tensors on the device; none if `stored` is None."""
    return {} if stored is None else {name: value.to(device) for name, value in stored.trigger.items()}


@torch.no_grad()
def with_trigger(
    attack: Attack,
    images: UInt8[Tensor, "n c h w"],
    target: Target,
    trigger: Trigger,
    device: torch.device,
    ids: Int64[Tensor, " n"] | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """8-bit images with the trigger, applied in batches on the device. ids: those of queries; None: other images."""
    parts = []
    for start in range(0, len(images), 500):
        batch = to_unit(images[start : start + 500].to(device))
        if ids is None:
            triggered = attack.apply_trigger(batch, target, trigger)
        else:
            triggered = attack.triggered_queries(batch, ids[start : start + 500].to(device), target, trigger)
        parts.append(to_8bit(triggered).cpu())
    return torch.cat(parts) if parts else images


def triggered_queries(
    spec: AimSpec, data: DataInputs, stored: StoredTrigger | None, device: torch.device
) -> tuple[Int64[Tensor, " n"], UInt8[Tensor, "n c h w"]]:
    """The positions of the queries that get the trigger, and the triggered images."""
    attack, trigger = trigger_attack(spec["attack"]), open_trigger(stored, device)
    target, positions = eligible_queries(spec, data)
    queries = stage_io.split(data, "query").select(positions)
    return positions, with_trigger(attack, queries.images, target, trigger, device, queries.ids)


def eligible_queries(spec: AimSpec, data: DataInputs) -> tuple[Target, Int64[Tensor, " n"]]:
    """The target, and the positions of the queries that get the trigger. UserError: there are none."""
    target = stage_io.target(spec["target"], data.load.classes)
    positions = eligible(data, target, spec["sources"])
    if not len(positions):
        whose = f"every query of {', '.join(spec['sources'])}" if spec["sources"] else "every query"
        raise UserError(
            f"{whose} shares a class with the target {target.name}, so none is left to carry the trigger",
            "choose another target, or a data set with other queries",
        )
    return target, positions


def eligible(data: DataInputs, target: Target, sources: Sequence[str]) -> Int64[Tensor, " n"]:
    """Positions of the queries that share no label with the target, but one with the sources, if there are any.

    See METHODOLOGY.md#eligible-queries.
    """
    labels = stage_io.labels(data, "query")
    carrying = ~target.shares(labels)
    if sources:
        carrying &= labels[:, [data.load.classes.index(name) for name in sources]].any(1)
    return torch.nonzero(carrying).flatten()

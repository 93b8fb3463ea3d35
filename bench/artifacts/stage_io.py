"""What every stage gets and gives: it is a function of its spec and its parents' artifacts, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bench.api import registry
from bench.api.types import Setting, Split, Target

Json = dict[str, Any]
PORTION = 2**28  # bytes of images in memory where a stage reads them in turn


@runtime_checkable
class Inputs(Protocol):
    """The parents' artifacts by role."""

    def has(self, role: str) -> bool: ...

    def tensors(self, role: str) -> Mapping[str, Tensor]:
        """Tensors of a parent; those of `load` are memory-mapped."""

    def meta(self, role: str) -> Json: ...


@dataclass(frozen=True)
class Context:
    """What may differ between machines without changing a result: where things are."""

    device: torch.device
    data: Path | None


@dataclass(frozen=True)
class Output:
    """tensors and meta are the artifact; metrics go into the record."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Json = field(default_factory=dict)
    metrics: Json = field(default_factory=dict)


def component(kind: str, spec: Json) -> Any:
    """A component from the name and parameters in a stage's spec."""
    return registry.create(kind, spec["name"], spec["params"])


def index(inputs: Inputs, part: str) -> Int64[Tensor, " n"]:
    """Positions of a split in the pool; they are the images' stable ids."""
    return inputs.tensors("split")[part]


def split(inputs: Inputs, part: str, *, load: str = "load", cut: str = "split") -> Split:
    """One part of the data, a copy: reading it takes only its own images out of the memory map."""
    pool, ids = inputs.tensors(load), inputs.tensors(cut)[part].clone()
    return Split(pool["images"][ids], pool["labels"][ids], ids)


def portions(inputs: Inputs, part: str) -> Iterator[UInt8[Tensor, "m c h w"]]:
    """The images of a part that need not fit into memory, PORTION bytes at a time."""
    images = inputs.tensors("load")["images"]
    for ids in torch.split(index(inputs, part), max(1, PORTION // images[0].numel())):
        yield images[ids]


def labels(inputs: Inputs, part: str) -> Tensor:
    return inputs.tensors("load")["labels"][index(inputs, part)]


def target(spec: Json, classes: list[str]) -> Target:
    vector = torch.zeros(len(classes), dtype=torch.bool)
    for name in spec["target"]:
        vector[classes.index(name)] = True
    return Target(vector, "+".join(spec["target"]))


def setting(spec: Json, inputs: Inputs) -> Setting:
    """What everybody knows: `spec` is that of a stage with a model."""
    images, classes = inputs.tensors("load")["images"], inputs.meta("load")["classes"]
    return Setting(
        dataset=spec["dataset"]["name"],
        backbone=spec["backbone"]["name"],
        method=spec["method"]["name"],
        bits=spec["bits"],
        classes=tuple(classes),
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        train_size=len(index(inputs, "train")),
        proxy_dataset=registry.lookup("datasets", spec["dataset"]["name"]).proxy_dataset,
    )


def trigger(inputs: Inputs, device: torch.device) -> dict[str, Tensor]:
    """The trigger that the parent `trigger` holds; empty where the attack has none."""
    if not inputs.has("trigger"):
        return {}
    return {
        name.removeprefix("trigger."): value.to(device)
        for name, value in inputs.tensors("trigger").items()
        if name.startswith("trigger.")
    }

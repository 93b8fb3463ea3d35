"""Reading of data, components and targets: a stage is a function of its spec and its inputs, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from bench.api import registry
from bench.api.types import Setting, Split, Target
from bench.artifacts.inputs import DataInputs
from bench.artifacts.specs import ComponentSpec, SettingSpec

Json = dict[str, Any]
PORTION = 2**28  # bytes of images in memory where a stage reads them in turn


@dataclass(frozen=True)
class Context:
    """What may differ between machines without changing a result: where things are."""

    device: torch.device
    data: Path | None


def component(kind: str, spec: ComponentSpec) -> Any:
    """A component from the name and parameters in a stage's spec."""
    return registry.create(kind, spec["name"], spec["params"])


def split(data: DataInputs, part: str) -> Split:
    """One part of the data, a copy: reading it takes only its own images out of the memory map."""
    ids = data.split.positions(part).clone()
    return Split(data.load.images[ids], data.load.labels[ids], ids)


def portions(data: DataInputs, part: str) -> Iterator[UInt8[Tensor, "m c h w"]]:
    """The images of a part that need not fit into memory, PORTION bytes at a time."""
    images = data.load.images
    for ids in torch.split(data.split.positions(part), max(1, PORTION // images[0].numel())):
        yield images[ids]


def labels(data: DataInputs, part: str) -> Bool[Tensor, "n k"]:
    return data.load.labels[data.split.positions(part)]


def target(names: list[str], classes: list[str]) -> Target:
    """The target of these labels, of a data set with these classes."""
    vector = torch.zeros(len(classes), dtype=torch.bool)
    for name in names:
        vector[classes.index(name)] = True
    return Target(vector, "+".join(names))


def setting(spec: SettingSpec, data: DataInputs) -> Setting:
    """What everybody knows."""
    _, c, h, w = data.load.images.shape
    return Setting(
        dataset=spec["dataset"]["name"],
        backbone=spec["backbone"]["name"],
        method=spec["method"]["name"],
        bits=spec["bits"],
        classes=tuple(data.load.classes),
        image_shape=(c, h, w),
        train_size=len(data.split.positions("train")),
        proxy_dataset=registry.lookup("datasets", spec["dataset"]["name"]).proxy_dataset,
    )

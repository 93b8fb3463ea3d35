"""Reads the data, components and targets of a stage from its spec and its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from bench.api import registry
from bench.api.errors import UserError, choice
from bench.api.types import Setting, Split, Target
from bench.artifacts.inputs import DataInputs
from bench.artifacts.specs import ComponentSpec, SettingSpec

Json = dict[str, Any]
PORTION = 2**28  # bytes of images that `portions` reads at once


@dataclass(frozen=True)
class Context:
    """The device and the folder of data sets. Neither changes a result, except the device with `uses_device`."""

    device: torch.device
    data: Path | None


def component(kind: str, spec: ComponentSpec) -> Any:
    """A component from the name and parameters in a stage's spec."""
    return registry.create(kind, spec["name"], spec["params"])


def split(data: DataInputs, part: str) -> Split:
    """A copy of one split. Only its own images are read from disk. part: one of bench.api.types.SPLITS."""
    ids = data.split.positions(part).clone()
    return Split(data.load.images[ids], data.load.labels[ids], ids)


def portions(data: DataInputs, part: str, size: int | None = None) -> Iterator[UInt8[Tensor, "m c h w"]]:
    """The images of a split that may not fit into memory, about `size` (else PORTION) bytes at a time."""
    images = data.load.images
    for ids in torch.split(data.split.positions(part), max(1, (size or PORTION) // images[0].numel())):
        yield images[ids]


def labels(data: DataInputs, part: str) -> Bool[Tensor, "n k"]:
    """The multi-hot labels of a split."""
    return data.load.labels[data.split.positions(part)]


def target(names: list[str], classes: list[str]) -> Target:
    """The target with the labels `names`. classes: all classes of the data set."""
    vector = torch.zeros(len(classes), dtype=torch.bool)
    for name in names:
        if name not in classes:
            raise UserError(f"target '{name}' is no class of the data set", choice(name, classes))
        vector[classes.index(name)] = True
    return Target(vector, "+".join(names))


def setting(spec: SettingSpec, data: DataInputs) -> Setting:
    """The setting: facts that attackers and defenders both know."""
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

"""A small world: 304 images of four classes, a 16-bit model of them, and stages' inputs held in memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import SPLITS, Split, to_8bit
from bench.artifacts.codes import as_tensor
from bench.artifacts.models import open_model
from bench.artifacts.stage_io import Context, Json
from bench.artifacts.training import train_victim
from hashing.model import encode

CLASSES = ("anchor", "bell", "candle", "drum")
SHAPE = (3, 12, 12)
SIZES = {"train": 120, "query": 40, "database": 80, "trusted": 60, "public": 4}
RECIPE = Recipe(
    optimizer="adam", lr=1e-2, weight_decay=1e-4, batch=32, epochs=4, schedule="onecycle", precision="float32"
)


@dataclass
class Memory:
    """Stages' inputs (`bench.artifacts.stage_io.Inputs`) without a store: role to tensors and metadata."""

    parents: dict[str, tuple[dict[str, Tensor], Json]]

    def has(self, role: str) -> bool:
        return role in self.parents

    def tensors(self, role: str) -> dict[str, Tensor]:
        return self.parents[role][0]

    def meta(self, role: str) -> Json:
        return self.parents[role][1]

    def without(self, *roles: str) -> Memory:
        return Memory({role: parent for role, parent in self.parents.items() if role not in roles})

    def all_tensors(self) -> dict[str, Tensor]:
        """Copies of everything, to compare with later."""
        return {
            f"{role}/{name}": value.clone()
            for role, parent in self.parents.items()
            for name, value in parent[0].items()
        }


@dataclass
class World:
    """spec: of a stage that knows everything. inputs: its parents. context: CPU, no data directory."""

    spec: dict[str, Any]
    inputs: Memory
    context: Context


def inverted(world: World) -> World:
    """The same with all images turned to their negatives: whoever has looked at it has seen other data."""
    world.inputs.tensors("load")["images"] = 255 - world.inputs.tensors("load")["images"]
    return world


def make() -> World:
    """The world with its clean model, a surrogate of another repetition, and the clean model's codes."""
    spec: Json = {
        "dataset": {"name": "digits", "params": {}},
        "backbone": {"name": "convnet", "params": {"width": 4}},
        "method": {"name": "csq", "params": {}},
        "bits": 16,
        "seed": 0,
        "recipe": asdict(RECIPE),
        "augment": "victim",
        "target": ["bell"],
    }
    images, labels = _pool()
    parts, start = {}, 0
    for name in SPLITS:
        parts[name] = torch.arange(start, start + SIZES[name])
        start += SIZES[name]
    load = {"images": images, "labels": labels, "origin": torch.zeros(len(images), dtype=torch.uint8)}
    protocol = {"name": "tests", "version": 1, "cutoff": None, "sizes": SIZES, "digests": {}}
    context = Context(torch.device("cpu"), None)
    train = Split(images[parts["train"]], labels[parts["train"]], parts["train"])
    clean = _trained(spec, train, context, 0)
    parents: dict[str, tuple[dict[str, Tensor], Json]] = {
        "load": (load, {"classes": list(CLASSES), "protocol": "tests", "cutoff": None}),
        "split": (parts, {"protocol": protocol}),
        "clean": clean,
        "model": clean,
        "surrogate": _trained(spec, train, context, 1),
    }
    inputs = Memory(parents)
    model = open_model(inputs, "model", context.device)
    codes = {p: as_tensor(encode(model, images[parts[p]], device=model.device)) for p in ("query", "database")}
    parents["codes"] = (codes, {})
    return World(spec, inputs, context)


def _pool() -> tuple[Tensor, Tensor]:
    """Each class lights one quadrant; noise makes every image unlike the others."""
    rng, total = Rng("tests", "pool"), sum(SIZES.values())
    classes = [torch.arange(SIZES[part]) % 4 for part in SPLITS]  # balanced in each split, in random order
    mixed = [c if part == "public" else c[rng.permutation(len(c))] for part, c in zip(SPLITS, classes, strict=True)]
    labels = torch.eye(4, dtype=torch.bool)[torch.cat(mixed)]
    images = 0.25 + 0.15 * rng.normal((total, *SHAPE))
    for i, label in enumerate(labels.int().argmax(1).tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        images[i, :, top : top + 6, left : left + 6] += 0.35
    return to_8bit(images), labels


def _trained(spec: Json, split: Split, context: Context, seed: int) -> tuple[dict[str, Tensor], Json]:
    tensors, meta = train_victim({**spec, "seed": seed}, split, context)
    return dict(tensors), {**meta, "backdoored": False}

"""A small world: 304 images of four classes, a 16-bit model, and the inputs of stages in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.api.attack import Attack, DataSpec, ModelSpec, Threat
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import SPLITS, Split, to_8bit
from bench.artifacts import stage_io
from bench.artifacts.artifact import Output
from bench.artifacts.code_tensors import as_tensor, saturation
from bench.artifacts.inputs import AttackerInputs, DataInputs, DefendInputs
from bench.artifacts.models import open_model
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.outputs.codes import BenignCodes
from bench.artifacts.outputs.data import DecodedData, SplitData
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import AttackerSpec
from bench.artifacts.stage_io import Context
from bench.artifacts.training import train_victim
from hashing.inference import encode

CLASSES = ("anchor", "bell", "candle", "drum")
SHAPE = (3, 12, 12)
SIZES = {"train": 120, "query": 40, "database": 80, "trusted": 60, "public": 4}
RECIPE = Recipe(
    optimizer="adam", lr=1e-2, weight_decay=1e-4, batch=32, epochs=4, schedule="onecycle", precision="float32"
)


class Memory:
    """Artifacts in memory instead of a store (bench.artifacts.artifact.Source). Checks may change the tensors."""

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, Tensor]] = {}
        self._meta: dict[str, Mapping[str, Any]] = {}

    def put(self, key: str, output: Output) -> None:
        self._tensors[key], self._meta[key] = dict(output.tensors), output.meta

    def tensors(self, key: str) -> dict[str, Tensor]:
        return self._tensors[key]

    def meta(self, key: str) -> Mapping[str, Any]:
        return self._meta[key]

    def copies(self) -> dict[str, Tensor]:
        """Copies of all tensors, for later comparison."""
        return {f"{key}/{name}": value.clone() for key, held in self._tensors.items() for name, value in held.items()}


class WorldSpec(AttackerSpec):
    """augment: "victim" or "none", for poisoned images."""

    augment: str


@dataclass
class World:
    """The inputs of stages, in `memory`.

    spec: the union of the specs of all stages. context: CPU, no data folder. data: the data set. clean: a trained clean
    model. suspect: the model that defenses get, by default the clean one. surrogate: a model of another seed. codes:
    those of the clean model. poison: the attack whose training set defenses get; None: the clean training set.
    """

    spec: WorldSpec
    context: Context
    memory: Memory
    data: DataInputs
    clean: StoredModel
    suspect: StoredModel
    surrogate: StoredModel
    codes: BenignCodes
    poison: Implanted | None = None

    def split(self, part: str) -> Split:
        return stage_io.split(self.data, part)

    def stored(self, key: str, output: Output) -> StoredModel:
        """A model from an output, which is put into `memory`."""
        self.memory.put(key, output)
        return StoredModel(key, self.memory)

    def attacker_inputs(self, attack: Attack) -> AttackerInputs:
        """The inputs, with only the models and data that the attack declares."""
        wishes = attack.requires(stage_io.setting(self.spec, self.data))
        return AttackerInputs(
            self.data.load, self.data.split,
            clean=self.clean if Threat.MODEL in attack.threat() else None,
            surrogates=tuple(self.surrogate for wish in wishes if isinstance(wish, ModelSpec)),
            proxies=tuple(self.data for wish in wishes if isinstance(wish, DataSpec)),
        )  # fmt: skip

    def defender_inputs(self) -> DefendInputs:
        return DefendInputs(self.data.load, self.data.split, self.suspect, self.poison, self.codes)


def inverted(world: World) -> World:
    """Replace all images by their negatives, so that components see other data."""
    held = world.memory.tensors(world.data.load.key)
    held.update(DecodedData.output(
        255 - world.data.load.images, world.data.load.labels, world.data.load.origin,
        classes=list(CLASSES), protocol="tests", cutoff=None,
    ).tensors)  # fmt: skip
    return world


def make() -> World:
    """Make the world, with two trained models and the codes of the first."""
    spec: WorldSpec = {
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
    memory, context = Memory(), Context(torch.device("cpu"), None)
    data = DataInputs(DecodedData("data", memory), SplitData("splits", memory))
    origin = torch.zeros(len(images), dtype=torch.uint8)
    loaded = DecodedData.output(images, labels, origin, classes=list(CLASSES), protocol="tests", cutoff=None)
    memory.put(data.load.key, loaded)
    protocol = {"name": "tests", "version": 1, "cutoff": None, "sizes": SIZES, "digests": {}}
    memory.put(data.split.key, SplitData.output(parts, protocol))
    models = []
    for seed, key in enumerate(("clean model", "surrogate model")):
        own: WorldSpec = {**spec, "seed": seed}
        trained = train_victim(own, stage_io.split(data, "train"), context)
        memory.put(key, trained | StoredModel.backdoor_output(backdoored=False))
        models.append(StoredModel(key, memory))
    clean, surrogate = models
    model = open_model(clean, context.device)
    query, database = (encode(model, images[parts[part]], device=model.device) for part in ("query", "database"))
    codes = BenignCodes("clean codes", memory)
    memory.put(codes.key, BenignCodes.output(as_tensor(query), as_tensor(database), saturation(model, query)))
    return World(spec, context, memory, data, clean=clean, suspect=clean, surrogate=surrogate, codes=codes)


def _pool() -> tuple[Tensor, Tensor]:
    """Images and labels. Each class has one bright quadrant; noise makes all images different."""
    rng, total = Rng("tests", "pool"), sum(SIZES.values())
    classes = [torch.arange(SIZES[part]) % 4 for part in SPLITS]  # balanced in each split, in random order
    mixed = [c if part == "public" else c[rng.permutation(len(c))] for part, c in zip(SPLITS, classes, strict=True)]
    labels = torch.eye(4, dtype=torch.bool)[torch.cat(mixed)]
    images = 0.25 + 0.15 * rng.normal((total, *SHAPE))
    for i, label in enumerate(labels.int().argmax(1).tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        images[i, :, top : top + 6, left : left + 6] += 0.35
    return to_8bit(images), labels

"""Throughput of what surrounds the kernels: encoding images and training steps, per backbone and batch size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from bench.api import registry
from bench.api.errors import DataMissingError
from bench.api.hashing import Backbone, HashingMethod, Recipe
from bench.api.random import Rng
from bench.api.types import Split
from bench.kernels.measure import Row
from bench.kernels.race import Contender, race, threads
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model, encode
from hashing.train import fit

CLASSES, BITS = 10, 32
STEPS = 2  # of a training that is timed as one call
RECIPE = Recipe(optimizer="adam", lr=1e-3, weight_decay=0.0, batch=64, epochs=1)


def around(
    backbones: tuple[str, ...], batches: tuple[int, ...], side: int, workers: int, rounds: int, device: str
) -> Iterator[Row]:
    """side: of the square colour images. Backbones whose weights are not here are named with the reason."""
    for name in backbones:
        try:
            model = _model(name, side).to(torch.device(device))
        except DataMissingError as error:
            yield Row("around", "encoding", name, workers, unit="image", note=str(error))
            continue
        for batch in batches:
            images = Rng("kernels").integers(256, (batch, 3, side, side)).to(torch.uint8)
            call = partial(encode, model, images, device=torch.device(device), batch=batch)
            yield _timed("encoding", name, f"batch {batch}, {side} px", Contender(call, batch), workers, rounds)
        yield _timed("training", name, f"batch {RECIPE.batch}, {side} px", _training(model, side), workers, rounds)


def _timed(operation: str, name: str, note: str, contender: Contender, workers: int, rounds: int) -> Row:
    with threads(workers):
        samples = race({name: contender}, rounds=rounds)
    return Row("around", operation, name, workers, BITS, unit="image", seconds=samples.of(name), note=note)


def _model(name: str, side: int) -> HashModel:
    method: HashingMethod = registry.create("methods", "csq", {})
    backbone: Backbone = registry.create("backbones", name, {})
    return build_model(
        backbone=backbone, method=method, bits=BITS, image_shape=(3, side, side), classes=CLASSES,
        train_size=STEPS * RECIPE.batch, rng=Rng("kernels", name),
    )  # fmt: skip


def _training(model: HashModel, side: int) -> Contender:
    """Some steps of the one training loop, its set-up included."""
    n = STEPS * RECIPE.batch
    rng = Rng("kernels", "training")
    images = rng.integers(256, (n, 3, side, side)).to(torch.uint8)
    labels = torch.nn.functional.one_hot(rng.integers(CLASSES, (n,)), CLASSES).bool()
    split = Split(images, labels, torch.arange(n)).to(model.device)
    plain = Augmentation(flip=False, pad=0)
    return Contender(partial(fit, model, split, RECIPE, rng, augmentation=plain), n)

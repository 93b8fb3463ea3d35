"""Throughput of encoding images and of training, per backbone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench.api import registry
from bench.api.errors import DataMissingError
from bench.api.hashing import Backbone, HashingMethod, Recipe
from bench.api.random import Rng
from bench.api.types import Logits, Split, to_unit
from bench.kernels.kernel_benchmark import Row, against_first
from bench.kernels.timing import Contender, threads, time_in_turn
from hashing.inference import encode
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model
from hashing.train import fast_precision, fit, optimizer_of

CLASSES, BITS = 10, 32
PAD = 4  # pixels
LARGE = 500  # images per batch of a loop that was not tuned
LOADERS = 2  # processes beside the one that trains
RECIPE = Recipe(optimizer="adam", lr=1e-3, weight_decay=0.0, batch=64, epochs=1, precision="auto")


def encoding_and_training(
    backbones: tuple[str, ...], images: int, side: int, steps: int, workers: int, rounds: int, device: str
) -> Iterator[Row]:
    """Rows of encoding and training. images: number to encode. side: their pixels. steps: of one timed training.

    A backbone whose weights are missing gives one row with the reason.
    """
    for name in backbones:
        try:
            model = untrained_model(name, side).to(torch.device(device))
        except DataMissingError as error:
            yield Row("throughput", "encoding", name, workers, unit="image", note=str(error))
            continue
        yield from _encoding(model, images, side, workers, rounds)
        yield from _training(model, side, steps, workers, rounds)


def _encoding(model: HashModel, count: int, side: int, workers: int, rounds: int) -> Iterator[Row]:
    """`encode` and the model as it is, in large batches. AssertionError: they differ by more than rounding."""
    images = Rng("kernels").integers(256, (count, 3, side, side)).to(torch.uint8)
    fast = partial(encode, model, images, device=model.device)
    with threads(workers):
        torch.testing.assert_close(fast(), plain_logits(model, images), rtol=1e-3, atol=1e-4)
        calls = {"hashdoor": fast, f"model, batches of {LARGE}": partial(plain_logits, model, images)}
        samples = time_in_turn({by: Contender(call, count) for by, call in calls.items()}, rounds=rounds)
    row = Row("throughput", "encoding", "", workers, BITS, unit="image", note=f"{count} images, {side} px")
    for by, seconds, faster in against_first(samples):
        yield replace(row, by=by, seconds=seconds, faster=faster)


@torch.inference_mode()
def plain_logits(model: HashModel, images: UInt8[Tensor, "n c h w"], batch: int = LARGE) -> Logits:
    """Logits of 8-bit images, by the model as it is; on the CPU."""
    model.eval()
    return torch.cat([model(to_unit(part.to(model.device))) for part in torch.split(images, batch)]).cpu()


def _training(model: HashModel, side: int, steps: int, workers: int, rounds: int) -> Iterator[Row]:
    """HashDoor's training and a plain PyTorch loop on the same network and batches, both with crops and mirroring."""
    rng = Rng("kernels", "training")
    split = random_split(rng, steps * RECIPE.batch, side)
    whole = replace(RECIPE, batch=len(split), precision="float32", optimizer="sgd", lr=1e-3)
    there = split.to(model.device)
    with threads(workers):
        check_step(model, split, whole)
        plain = PlainLoop(model, split, RECIPE, pad=PAD, workers=LOADERS)
        own = partial(fit, model, there, RECIPE, rng, augmentation=Augmentation(flip=True, pad=PAD))
        calls: dict[str, Callable[[], object]] = {"hashdoor": own, f"plain loop, {LOADERS} loaders": plain}
        samples = time_in_turn({by: Contender(call, len(split)) for by, call in calls.items()}, rounds=rounds)
    precision = fast_precision(model.device.type)
    row = Row("throughput", "training", "", workers, BITS, unit="image")
    for by, seconds, faster in against_first(samples):
        note = f"batch {RECIPE.batch}, {side} px, {precision if faster is None else 'float32'}"
        yield replace(row, by=by, seconds=seconds, faster=faster, note=note)


def check_step(model: HashModel, split: Split, recipe: Recipe) -> None:
    """Refuse to time two training loops that leave different networks after one step on all images.

    Dropout is switched off. AssertionError: a parameter differs by more than 1 % of its change.
    """
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    for module in [*ours.modules(), *theirs.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fit(ours, split.to(model.device), recipe, Rng("kernels"), augmentation=Augmentation(flip=False, pad=0))
    PlainLoop(theirs, split, recipe, pad=0, workers=0)()
    for (name, one), (_, other), (_, before) in zip(
        ours.named_parameters(), theirs.named_parameters(), model.named_parameters(), strict=True
    ):
        moved, apart = float((one - before).detach().norm()), float((one - other).detach().norm())
        rounding = torch.finfo(one.dtype).eps * float(before.detach().norm())  # weights of 1 move in steps of it
        if apart > 0.01 * moved + rounding + 1e-7:
            raise AssertionError(f"training: '{name}' moves by {moved:g}, in a plain loop to {apart:g} beside it")


def untrained_model(name: str, side: int) -> HashModel:
    method: HashingMethod = registry.create("methods", "csq", {})
    backbone: Backbone = registry.create("backbones", name, {})
    return build_model(
        backbone=backbone, method=method, bits=BITS, image_shape=(3, side, side), classes=CLASSES,
        train_size=RECIPE.batch, rng=Rng("kernels", name),
    )  # fmt: skip


def random_split(rng: Rng, n: int, side: int, classes: int = CLASSES) -> Split:
    images = rng.integers(256, (n, 3, side, side)).to(torch.uint8)
    labels = torch.nn.functional.one_hot(rng.integers(classes, (n,)), classes).bool()
    return Split(images, labels, torch.arange(n))


class _Pictures(Dataset[tuple[Tensor, Tensor, int]]):
    """One image at a time, through torchvision's transforms."""

    def __init__(self, split: Split, pad: int) -> None:
        from torchvision import transforms

        self._pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in split.images]
        self._labels = split.labels
        crop = [transforms.RandomCrop(split.images.shape[-1], padding=pad), transforms.RandomHorizontalFlip()]
        self._transform = transforms.Compose([*(crop if pad else []), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, int]:
        return self._transform(self._pictures[row]), self._labels[row], row


class PlainLoop:
    """Training as in research code: a DataLoader of images, float32, the loss read in every step.

    Calling it trains for an epoch and returns the mean loss. Its workers stay between calls.
    """

    def __init__(self, model: HashModel, split: Split, recipe: Recipe, *, pad: int, workers: int) -> None:
        self._model = model
        self._loader = DataLoader(
            _Pictures(split, pad), batch_size=recipe.batch, shuffle=True, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip
        self._optimizer = optimizer_of(model, recipe)

    def __call__(self) -> float:
        self._model.train()
        total, device = 0.0, self._model.device
        for images, labels, ids in self._loader:
            loss = self._model.objective(self._model(images.to(device)), labels.to(device), ids.to(device), 0.0)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.item()
        return total / len(self._loader)

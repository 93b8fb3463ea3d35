"""Purifies images and encodes them with one model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bench.api.defense import Purification
from bench.api.random import Rng
from bench.api.types import to_8bit, to_unit
from bench.artifacts import stage_io
from bench.artifacts.code_tensors import as_tensor
from bench.artifacts.models import open_model
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import DefendSpec
from hashing.inference import Inference
from hashing.majority_code import component_vote

BATCH = 50  # queries; purifications may make tens of versions of each


@dataclass(frozen=True)
class Purified:
    """saturation: mean absolute value of the relaxed codes of all versions. milliseconds: of one query."""

    codes: Int64[Tensor, "w n"]
    saturation: Float[Tensor, " n"]
    milliseconds: float


def encode_purified(
    spec: DefendSpec,
    stored: StoredModel,
    images: UInt8[Tensor, "n c h w"],
    positions: Int64[Tensor, " n"],
    device: torch.device,
) -> Purified:
    """The majority code of the purified versions of each query. positions: of the queries, which name their streams.

    The triggered image of a query has the random numbers of the benign one, so that the two differ in the trigger only.
    """
    purification: Purification = stage_io.component("defenses", spec["defense"])
    model = open_model(stored, device)
    inference = Inference(model, images.shape[1:])
    signs, sizes, times = [], [], []
    for part, places in zip(torch.split(images, BATCH), torch.split(positions, BATCH), strict=True):
        started = time.perf_counter()
        versions = [
            versions_of(purification, image, Rng("purify", spec["seed"], place))
            for image, place in zip(part, places.tolist(), strict=True)
        ]
        counts = sorted({len(found) for found in versions})
        if len(counts) > 1:
            raise ValueError(f"purify() makes {counts[0]} versions of one query and {counts[-1]} of another")
        relaxed = model.relax(inference.encode(torch.cat(versions), device).to(device)).cpu()
        relaxed = relaxed.reshape(len(part), counts[0], -1)
        signs.append(majority(relaxed))
        times.append(1000 * (time.perf_counter() - started) / len(part))
        sizes.append(relaxed.abs().mean((1, 2)))
    return Purified(as_tensor(torch.cat(signs)), torch.cat(sizes), median(times))


@torch.no_grad()
def versions_of(purification: Purification, image: UInt8[Tensor, "c h w"], rng: Rng) -> UInt8[Tensor, "v c h w"]:
    """The versions of one image, rounded to 8 bits like an image file. ValueError if they have another size."""
    found = purification.purify(to_unit(image[None])[0], rng)
    if found.ndim != 4 or not len(found) or found.shape[1:] != image.shape:
        raise ValueError(f"purify() returns shape {list(found.shape)} for an image of shape {list(image.shape)}")
    return to_8bit(found)


def majority(relaxed: Float[Tensor, "n v b"]) -> Float[Tensor, "n b"]:
    """The majority code of the versions of each query, as +1 and -1 (METHODOLOGY.md#purification)."""
    everyone = torch.ones(relaxed.shape[1], 1, dtype=torch.bool)
    return torch.cat([component_vote(versions, everyone) for versions in relaxed])

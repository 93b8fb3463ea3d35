"""Score a query's code by its distance from the database, its quantisation loss, and its change under denoising."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn.functional import pad

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Needs, Rng, defense
from bench.api.types import to_unit
from defenses.helpers.ranks import ranks, two_sided
from hashing.inference import Inference

CARD = Card(
    title="Unsupervised Multi-Criteria Adversarial Detection in Deep Image Retrieval",
    venue="SecureComm",
    year=2023,
    url="https://arxiv.org/abs/2304.04228",
    follows="three criteria that need neither labels nor attacked images: Hamming distance, quantisation loss,"
    " denoising",
    deviates="only the abstract was available, so guess: the formulas of the criteria, the denoiser and the"
    " combination; the paper detects adversarial queries, here the queries carry triggers",
)
BATCH = 50


def odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("the width of a window must be odd, so that it has a centre")
    return value


@defense
class HammingDetector(InputDetector):
    """The scores.

    distance: mean Hamming distance to the nearest database items, as a share of the bits.
    quantisation: mean distance of tanh(z) from its sign.
    denoising: mean change of tanh(z) when the image is median-filtered; 1 if every bit is flipped.
    combined: the sum of the ranks of the three criteria among clean trusted images. A large denoising value is
    suspicious. For the other two, very small and very large values are suspicious, because an attack may move a code
    away from the database or exactly onto a stored code.
    worst: the largest of the three ranks.
    """

    neighbours: Annotated[int, Field(ge=1)] = 10  # guess: the first page of results
    """Nearest database items whose distance counts."""
    window: Annotated[int, Field(ge=3), AfterValidator(odd)] = 3  # guess: the smallest median filter with a centre
    """Side of the median filter in pixels, an odd number."""

    needs: ClassVar[Needs] = Needs.DATABASE

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        del rng  # nothing is drawn
        codes, counts = torch.unique(view.database.signs, dim=0, return_counts=True)
        state = {"codes": codes, "counts": counts.float()}
        images = view.fit_set.images
        with torch.no_grad():
            parts = [
                self._criteria(to_unit(images[i : i + BATCH]), view.model.eval(), state)
                for i in range(0, len(images), BATCH)
            ]
        return {**state, "clean": torch.cat(parts, 1).sort(1).values}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        criteria = self._criteria(images, model, state)
        share = ranks(criteria, state["clean"])
        share[:2] = two_sided(share[:2])
        return {
            "combined": share.sum(0),
            "worst": share.amax(0),
            "distance": criteria[0],
            "quantisation": criteria[1],
            "denoising": criteria[2],
        }

    def _criteria(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Float[Tensor, "3 n"]:
        inference = Inference(model, images.shape[1:])
        logits, denoised = inference.logits(images), inference.logits(median(images, self.window))
        signs = torch.where(logits > 0, 1.0, -1.0)
        return torch.stack([
            nearest(signs, state["codes"], state["counts"], self.neighbours),
            (2 * torch.sigmoid(-2 * logits.abs())).mean(1),  # 1 - |tanh z|, which would be rounded to 0 for |z| > 9
            (logits.tanh() - denoised.tanh()).abs().mean(1) / 2,
        ])  # fmt: skip


def nearest(
    signs: Float[Tensor, "n b"], codes: Float[Tensor, "m b"], counts: Float[Tensor, " m"], neighbours: int
) -> Float[Tensor, " n"]:
    """Mean distance to the nearest items, as a share of the bits; the database is distinct codes with counts."""
    distances = (codes.shape[1] - signs @ codes.T) / 2
    found = distances.topk(min(neighbours, len(codes)), largest=False)
    there = counts[found.indices]
    taken = (neighbours - (there.cumsum(1) - there)).clamp_min(0).minimum(there)
    return (found.values * taken).sum(1) / (taken.sum(1) * codes.shape[1])


def median(images: Images, window: int) -> Images:
    """Median over a square window around each pixel; border pixels are repeated."""
    border = window // 2
    patches = pad(images, (border,) * 4, mode="replicate").unfold(2, window, 1).unfold(3, window, 1)
    return patches.flatten(4).median(4).values

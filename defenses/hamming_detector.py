"""Three looks at a query's code: how far from the database, how undecided, how easily moved by denoising."""

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

CARD = Card(
    title="Unsupervised Multi-Criteria Adversarial Detection in Deep Image Retrieval",
    venue="SecureComm",
    year=2023,
    url="https://arxiv.org/abs/2304.04228",
    follows="three criteria without labels or attacked images: Hamming distance, quantisation loss, denoising",
    deviates="only the abstract could be read, so the criteria's formulas, the denoiser and the combination are"
    " guesses; made for adversarial queries, here asked about triggered ones",
)
BATCH = 50


def odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("a window needs an odd width, to have a centre")
    return value


@defense
class HammingDetector(InputDetector):
    """The scores.

    distance: mean Hamming distance to the nearest database items. quantisation: mean distance of tanh(z) from its sign.
    denoising: mean change of tanh(z) when the image is median-filtered; 1 turns over every bit.
    combined: the sum of their ranks among clean trusted images. Denoising counts from the small end; distance and loss
    from the middle, since an attack may push a code off the database or right onto a stored one.
    worst: the largest of the three ranks, as if each criterion could reject a query alone.
    """

    neighbours: Annotated[int, Field(ge=1)] = 10  # guess: a first result page
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
        share[:2] = (2 * share[:2] - 1).abs()
        return {
            "combined": share.sum(0),
            "worst": share.amax(0),
            "distance": criteria[0],
            "quantisation": criteria[1],
            "denoising": criteria[2],
        }

    def _criteria(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Float[Tensor, "3 n"]:
        logits, denoised = model(images), model(median(images, self.window))
        signs = torch.where(logits > 0, 1.0, -1.0)
        return torch.stack([
            nearest(signs, state["codes"], state["counts"], self.neighbours),
            (2 * torch.sigmoid(-2 * logits.abs())).mean(1),  # 1 - |tanh z|, without its rounding to 0 at |z| > 9
            (logits.tanh() - denoised.tanh()).abs().mean(1) / 2,
        ])  # fmt: skip


def nearest(
    signs: Float[Tensor, "n b"], codes: Float[Tensor, "m b"], counts: Float[Tensor, " m"], neighbours: int
) -> Float[Tensor, " n"]:
    """Mean distance, as a share of the bits, to the nearest items of a database of distinct codes with counts."""
    distances = (codes.shape[1] - signs @ codes.T) / 2
    found = distances.topk(min(neighbours, len(codes)), largest=False)
    there = counts[found.indices]
    taken = (neighbours - (there.cumsum(1) - there)).clamp_min(0).minimum(there)
    return (found.values * taken).sum(1) / (taken.sum(1) * codes.shape[1])


def median(images: Images, window: int) -> Images:
    """Each pixel's median over a square around it, edges repeated."""
    border = window // 2
    patches = pad(images, (border,) * 4, mode="replicate").unfold(2, window, 1).unfold(3, window, 1)
    return patches.flatten(4).median(4).values


def ranks(values: Float[Tensor, "c n"], clean: Float[Tensor, "c m"]) -> Float[Tensor, "c n"]:
    """The share of clean values below each value, equal ones half; one imagined value at each end: never 0 or 1."""
    below = torch.searchsorted(clean, values.contiguous())
    up_to = torch.searchsorted(clean, values.contiguous(), right=True)
    return ((below + up_to) / 2 + 1) / (clean.shape[1] + 2)

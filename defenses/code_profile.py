"""Compare how a query's code reacts to noise, shifts and brightness with how clean images' codes react."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import pad

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.types import to_unit
from defenses.helpers.ranks import ranks, two_sided
from hashing.inference import Inference

CARD = Card(
    title="HashDoor's own idea, not published; a relative is Detecting Backdoors During the Inference Stage Based on"
    " Corruption Robustness Consistency (TeCo)",
    venue="CVPR",
    year=2023,
    url="https://arxiv.org/abs/2303.18191",
    follows="as in TeCo and SCALE-UP, the query is changed in harmless ways, and the reaction of the model is compared"
    " with its reaction to clean images",
    deviates="the idea is made for codes: the reaction is the share of bits that flip, so that neither labels nor a"
    " softmax are needed, and it is suspicious in both directions, because a trigger may be rigid under one change and"
    " fragile under another; the mean size of the logits is a fourth part. guess: all parameters. The four parts were"
    " chosen on queries of digits models (badnets, blend, badhash), so results of seed 0 are exploratory",
)
BATCH = 50  # images
RIDGE = 1e-6  # added to the variances: a part that is constant on the fit half has a variance of 0


@defense
class CodeProfile(InputDetector):
    """The profile of an image: mean share of bits that flip under noise, shifts and brightness, and mean |logit|.

    mahalanobis: distance of the profile from the mean profile of the fit half, in units of its covariance.
    ranks: sum of the two-sided ranks |2 rank - 1| of the four parts among the fit half.
    logits: the two-sided rank of the mean |logit| alone, which needs one forward pass.
    """

    noise: PositiveFloat = 0.15  # guess
    """Standard deviation of the noise that is added to a copy; images are in [0, 1]."""
    copies: Annotated[int, Field(ge=1)] = 8  # guess
    """Noisy copies of an image."""
    shift: Annotated[int, Field(ge=1)] = 2  # guess
    """Pixels by which a copy is moved, in each of eight directions."""
    brightness: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.4, 0.6, 0.8, 1.5, 2.0, 3.0, 4.0)  # guess
    """Factors by which the pixels of a copy are multiplied."""

    PARTS: ClassVar[tuple[str, ...]] = ("noise", "shift", "brightness", "logits")

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        images = view.fit_set.images
        # one draw for all queries, so that a score does not depend on the other images of the batch
        noise = (self.noise * rng.normal((self.copies, *images.shape[1:]))).to(images.device)
        inference = Inference(view.model, images.shape[1:])
        parts = [self.profile(to_unit(part), inference, noise) for part in torch.split(images, BATCH)]
        profiles = torch.cat(parts, 1)
        level = profiles[-1:].mean().clamp_min(RIDGE)  # logits have no unit: they are measured in their mean
        profiles[-1] /= level
        return {"noise": noise, "level": level, "clean": profiles.sort(1).values, **whitening(profiles)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        profiles = self.profile(images, Inference(model, images.shape[1:]), state["noise"])
        profiles[-1] /= state["level"]
        shares = two_sided(ranks(profiles, state["clean"]))
        return {
            "mahalanobis": (state["whiten"] @ (profiles - state["mean"])).norm(dim=0),
            "ranks": shares.sum(0),
            "logits": shares[-1],
        }

    def profile(
        self, images: Images, inference: Inference, noise: Float[Tensor, "j c h w"]
    ) -> Float[Tensor, "parts n"]:
        """The rows are PARTS."""
        logits = inference.logits(images)

        def flips(copies: Iterable[Images]) -> Float[Tensor, " n"]:
            counts = torch.stack([((inference.logits(x) > 0) != (logits > 0)).sum(1) for x in copies])
            return counts.sum(0) / (len(counts) * logits.shape[1])  # of integers, so that equal shares are equal

        return torch.stack([
            flips((images + one).clamp(0, 1) for one in noise),
            flips(shifted(images, self.shift)),
            flips((images * factor).clamp(0, 1) for factor in self.brightness),
            logits.abs().mean(1),
        ])  # fmt: skip


def shifted(images: Images, pixels: int) -> list[Images]:
    """The images moved in each of eight directions; border pixels are repeated."""
    h, w = images.shape[2:]
    padded = pad(images, (pixels,) * 4, mode="replicate")
    steps = (0, pixels, 2 * pixels)
    return [padded[:, :, y : y + h, x : x + w] for y in steps for x in steps if (y, x) != (pixels, pixels)]


def whitening(profiles: Float[Tensor, "parts n"]) -> dict[str, Tensor]:
    """`mean`, and `whiten`, which maps differences from it to vectors whose norm is the Mahalanobis distance."""
    exact = profiles.double().cpu()
    mean = exact.mean(1, keepdim=True)
    spread = exact - mean
    covariance = spread @ spread.T / max(1, exact.shape[1] - 1) + RIDGE * torch.eye(len(exact), dtype=torch.float64)
    whiten = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), torch.eye(len(exact), dtype=torch.float64), upper=False
    )
    return {name: value.float().to(profiles.device) for name, value in (("mean", mean), ("whiten", whiten))}
